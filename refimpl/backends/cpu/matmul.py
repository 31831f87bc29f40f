"""A matrix product for tiles: C ← A·B (+ C), A read where it lies, sums kept in vector registers.

BLAS copies both operands into an order of its own at every call, which costs a tile of a convolution a third of its
time. Here a block of rows × columns of C is held in registers while k runs; B is copied (a panel of `DEPTH` rows, in
level-one cache) only where its rows are far apart or end within a vector. The sum of an element runs over k in order,
`DEPTH` at a time, whatever the tile: the same bits for any tiling of rows.
"""

import platform

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from ...compiler.executed import MAC, Ops
from ...kernels.kernel import inline
from .memory import VECTOR, clear, copy, masked, transpose
from .shared import floats, shared, stack
from .tiles import DEPTH

ARM = platform.machine() in ("aarch64", "arm64")  # 32 registers of 16 bytes, x86 without AVX has 16
# rows of the blocks four, two and one vectors wide: their sums, a row of B and an element of A fill the registers
ROWS_4, ROWS_2, ROWS_1 = {64: (6, 8, 8), 32: (2, 6, 8), 16: (6, 8, 8) if ARM else (2, 6, 8)}[VECTOR]
PANEL = DEPTH * VECTOR  # elements of a panel of B in float32, four vectors wide: 24 KiB at most


def _block(rows, vectors):
    """Intrinsic for one block of C: `rows` rows, `vectors` vectors, of which the first `width` columns are stored."""

    @intrinsic
    def block(typing_context, zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width):
        if zero not in (types.float32, types.float64):
            raise TypingError(f"a product takes float32 or float64, got {zero}")

        def codegen(context, builder, signature, values):
            item = context.get_value_type(zero)
            size = context.get_abi_sizeof(item)
            lanes = VECTOR // size
            vector = ir.VectorType(item, lanes)
            pick = ir.VectorType(ir.IntType(32), lanes)
            intp, i32 = context.get_value_type(types.intp), ir.IntType(32)
            value = [
                context.cast(builder, x, kind, types.intp)
                for x, kind in zip(values[1:], signature.args[1:], strict=True)
            ]
            a, a_row, a_k, b, ldb, c, ldc, depth, add, width = value
            a, b, c = (builder.inttoptr(x, item.as_pointer()) for x in (a, b, c))
            full = builder.icmp_signed(">=", width, intp(vectors * lanes))

            def splat(x, kind):
                one = builder.insert_element(ir.Constant(kind, ir.Undefined), x, i32(0))
                return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(pick, None))

            def at(base, row, row_stride, v):
                pointer = builder.gep(base, [builder.add(builder.mul(intp(row), row_stride), intp(v * lanes))])
                return builder.bitcast(pointer, vector.as_pointer())

            def masks():  # which lanes of each vector lie inside the width
                wanted = splat(builder.trunc(width, i32), pick)
                return [
                    builder.icmp_signed("<", ir.Constant(pick, [v * lanes + j for j in range(lanes)]), wanted)
                    for v in range(vectors)
                ]

            def opaque(pointer):  # keeps LLVM from reaching each row through the one before, a chain of additions
                same = ir.InlineAsm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0")
                return builder.call(same, [pointer])

            cells = [(r, v) for r in range(rows) for v in range(vectors)]
            zeros = ir.Constant(vector, None)
            names = ("old", "old_full", "old_part", "begin", "depth", "end", "full", "part", "done")
            old, old_full, old_part, begin, loop, end, store_full, store_part, done = (
                builder.append_basic_block(name) for name in names
            )
            entry = builder.block
            builder.cbranch(builder.icmp_signed("!=", add, intp(0)), old, begin)
            builder.position_at_end(old)
            builder.cbranch(full, old_full, old_part)
            builder.position_at_end(old_full)
            whole = [builder.load(at(c, r, ldc, v), align=size) for r, v in cells]
            builder.branch(begin)
            builder.position_at_end(old_part)
            inside = masks()
            partly = [masked(builder, "load", vector, at(c, r, ldc, v), i32(size), inside[v], zeros) for r, v in cells]
            builder.branch(begin)

            builder.position_at_end(begin)
            first = []
            for x, y in zip(whole, partly, strict=True):
                phi = builder.phi(vector)
                for incoming, where in ((zeros, entry), (x, old_full), (y, old_part)):
                    phi.add_incoming(incoming, where)
                first.append(phi)
            lines = [opaque(builder.gep(a, [builder.mul(intp(r), a_row)])) for r in range(rows)]
            builder.cbranch(builder.icmp_signed(">", depth, intp(0)), loop, end)

            builder.position_at_end(loop)
            index, a_now, b_now = builder.phi(intp), builder.phi(intp), builder.phi(b.type)
            sums = [builder.phi(vector) for _ in cells]
            row_b = [builder.load(at(b_now, 0, ldb, v), align=size) for v in range(vectors)]
            i8 = ir.IntType(8).as_pointer()
            ahead = builder.add(a_now, builder.mul(a_k, intp(12)))
            kind = ir.FunctionType(ir.VoidType(), [i8, i32, i32, i32])
            prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
            for r in {0, rows - 1}:
                pointer = builder.bitcast(builder.gep(lines[r], [ahead]), i8)
                builder.call(prefetch, [pointer, i32(0), i32(3), i32(1)])
            result = []
            for r in range(rows):
                every = splat(builder.load(builder.gep(lines[r], [a_now])), vector)
                for v in range(vectors):
                    term = builder.fmul(every, row_b[v], flags=("contract",))
                    result.append(builder.fadd(sums[r * vectors + v], term, flags=("contract",)))
            following = builder.add(index, intp(1))
            a_next, b_next = builder.add(a_now, a_k), builder.gep(b_now, [ldb])
            for phi, x, later in [
                (index, intp(0), following), (a_now, intp(0), a_next), (b_now, b, b_next),
                *zip(sums, first, result, strict=True),
            ]:  # fmt: skip
                phi.add_incoming(x, begin)
                phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", following, depth), loop, end)

            builder.position_at_end(end)
            final = []
            for x, later in zip(first, result, strict=True):
                phi = builder.phi(vector)
                phi.add_incoming(x, begin)
                phi.add_incoming(later, loop)
                final.append(phi)
            builder.cbranch(full, store_full, store_part)
            builder.position_at_end(store_full)
            for x, (r, v) in zip(final, cells, strict=True):
                builder.store(x, at(c, r, ldc, v), align=size)
            builder.branch(done)
            builder.position_at_end(store_part)
            inside = masks()
            for x, (r, v) in zip(final, cells, strict=True):
                masked(builder, "store", vector, at(c, r, ldc, v), x, i32(size), inside[v])
            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width), codegen

    return block


_block_4, _block_2, _block_1 = _block(ROWS_4, 4), _block(ROWS_2, 2), _block(ROWS_1, 1)
_row_4, _row_2, _row_1 = _block(1, 4), _block(1, 2), _block(1, 1)


_panel = stack(PANEL)


@intrinsic
def _address(typing_context, array):
    """Address of the first element."""

    def codegen(context, builder, signature, values):
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.intp))

    return types.intp(array), codegen


@inline
def _rows(vectors, zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width):
    if vectors == 4:
        _block_4(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)
    elif vectors == 2:
        _block_2(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)
    else:
        _block_1(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)


@inline
def _row(vectors, zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width):
    if vectors == 4:
        _row_4(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)
    elif vectors == 2:
        _row_2(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)
    else:
        _row_1(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width)


def product_executes(m: int, n: int, k: int, itemsize: int) -> Ops:
    """What `product` executes: vectors of columns whole, and the last block of rows whole where one came before."""
    lanes, left, cells = VECTOR // itemsize, n, 0
    while left > 0:
        vectors, rows = (4, ROWS_4) if left > 3 * lanes else (2, ROWS_2) if left > lanes else (1, ROWS_1)
        cells += vectors * lanes * (m if m < rows else -(-m // rows) * rows)
        left -= vectors * lanes
    return MAC * (cells * k)


@shared
def product(zero, m, n, k, a, a0, a_row, a_k, b, b0, b_k, b_column, add, c, c0, ldc):
    """C (m, n) ← A (m, k) · B (k, n), plus C's old values where `add`.

    Element (i, l) of A is a[a0 + i·a_row + l·a_k], element (l, j) of B is b[b0 + l·b_k + j·b_column] where one of the
    two strides is 1, element (i, j) of C is c[c0 + i·ldc + j]: a transposed matrix has its strides exchanged. Offsets
    count elements of C-contiguous arrays. Nothing is checked.
    """
    panel, tile = _panel(zero), _panel(zero)
    array_b, array_c = floats(zero, b), floats(zero, c)
    size = array_c.itemsize
    lanes = VECTOR // size
    parts = max(1, (k + DEPTH - 1) // DEPTH)
    longest = (k + parts - 1) // parts
    to_a, to_b, to_c = a + a0 * size, b + b0 * size, c + c0 * size
    to_panel, to_tile = _address(panel), _address(tile)
    j = 0
    while j < n:
        left = n - j
        vectors, rows = 1, ROWS_1
        if left > 3 * lanes:
            vectors, rows = 4, ROWS_4
        elif left > lanes:
            vectors, rows = 2, ROWS_2
        wide = vectors * lanes
        width = min(wide, left)
        for part in range(parts):
            l0 = part * longest
            depth = min(longest, k - l0)
            packed = width < wide or b_column != 1 or (b_k > wide and m > 2 * rows)
            if width < wide:
                clear(panel, 0, depth * wide)
            if b_column != 1:
                transpose(panel, 0, wide, array_b, b0 + l0 * b_k + j * b_column, b_column, width, depth)
            elif packed:
                for l in range(depth):
                    copy(panel, l * wide, array_b, b0 + (l0 + l) * b_k + j, width)
            from_b, b_row = (to_panel, wide) if packed else (to_b + (l0 * b_k + j) * size, b_k)
            from_a = to_a + l0 * a_k * size
            add_old = 1 if add or part > 0 else 0
            i = 0
            while i + rows <= m:
                _rows(vectors, zero, from_a + i * a_row * size, a_row, a_k, from_b, b_row,
                      to_c + (i * ldc + j) * size, ldc, depth, add_old, width)  # fmt: skip
                i += rows
            if i < m and m >= rows:  # the last rows: a block that overlaps the one before, made aside
                first = m - rows
                for r in range(i, m):
                    copy(tile, (r - first) * wide, array_c, c0 + r * ldc + j, width)
                _rows(vectors, zero, from_a + first * a_row * size, a_row, a_k, from_b, b_row,
                      to_tile, wide, depth, add_old, wide)  # fmt: skip
                for r in range(i, m):
                    copy(array_c, c0 + r * ldc + j, tile, (r - first) * wide, width)
            else:
                for r in range(i, m):
                    _row(vectors, zero, from_a + r * a_row * size, a_row, a_k, from_b, b_row,
                         to_c + (r * ldc + j) * size, ldc, depth, add_old, width)  # fmt: skip
        j += width
