"""Small matrix products on tiles that are already in the cache: C (m, n) ← A (m, l) · B (l, n) + β·C.

A block of ROWS × VECTORS·LANES sums stays in registers while l runs. A is read one broadcast element at a time where
it lies, so it may just as well be stored transposed: element (i, l) is a[i·row + l·step]. B is copied panel by panel,
DEPTH rows of VECTORS·LANES columns, which stay in the first-level cache for all rows of A.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from ...compiler.executed import ADD, MAC, Ops
from ...kernels.kernel import inline
from .simd import FLAGS, LANES, Vector, load, load_lanes, spread, store, store_lanes


def register_block() -> tuple[int, int]:
    """(ROWS, VECTORS) whose sums fit into this processor's registers beside the factors."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 8, 3  # 24 of 32 registers of 16 floats
    if features.get("avx2"):
        return 5, 1  # 10 of 16 registers of 8 floats
    return 4, 1  # 16 of 32 registers of 4 floats


ROWS, VECTORS = register_block()
DEPTH = 128
PANEL = DEPTH * VECTORS * LANES  # elements of scratch of one thread


@intrinsic
def block(typing_context, rows, vectors, a, a_at, row, step, b, b_at, c, c_at, c_row, depth, n, add):
    """One block of C, added to it where add is true: literal rows and vectors, the last of n lanes. See `product`."""
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)):
        return None
    size = types.int64
    kinds = (rows, vectors, a, size, size, size, b, size, c, size, size, size, size, types.boolean)

    def generate(context, builder, sig, args):
        _, _, a, a_at, row, step, b, b_at, c, c_at, c_row, depth, n, add = args
        vector = context.get_value_type(Vector(sig.args[2].dtype))
        whole = ir.Constant(n.type, LANES)
        height, width = rows.literal_value, vectors.literal_value
        lanes = [whole] * (width - 1) + [n]
        zero = ir.Constant(vector, [0.0] * LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(width)] for _ in range(height)]

        def place(base, *terms):
            for factor, of in terms:
                base = builder.add(base, builder.mul(ir.Constant(n.type, factor), of))
            return base

        with cgutils.for_range(builder, depth) as loop:
            at = place(b_at, (VECTORS * LANES, loop.index))
            right = [
                load_lanes(context, builder, vector, (b, place(at, (LANES * j, ir.Constant(n.type, 1))), whole))
                for j in range(width)
            ]
            at = builder.add(a_at, builder.mul(loop.index, step))
            for i in range(height):
                left = spread(builder, builder.load(builder.gep(a, [place(at, (i, row))])), vector)
                for j in range(width):
                    product = builder.fmul(left, right[j], flags=FLAGS)
                    builder.store(builder.fadd(builder.load(sums[i][j]), product, flags=FLAGS), sums[i][j])
        with builder.if_then(add):
            for i in range(height):
                for j in range(width):
                    at = place(c_at, (i, c_row), (LANES * j, ir.Constant(n.type, 1)))
                    old = load_lanes(context, builder, vector, (c, at, lanes[j]))
                    builder.store(builder.fadd(builder.load(sums[i][j]), old), sums[i][j])
        for i in range(height):
            for j in range(width):
                at = place(c_at, (i, c_row), (LANES * j, ir.Constant(n.type, 1)))
                store_lanes(context, builder, (c, at, builder.load(sums[i][j]), lanes[j]))
        return context.get_dummy_value()

    return types.none(*kinds), generate


@inline
def rows_of(height, a, a_at, row, step, panel, panel_at, c, c_at, c_row, first, end, depth, n, add):
    """Rows first … end−1, `height` (literal) at a time, of one panel of n columns. The others as in `product`."""
    for i in range(first, end, height):
        a_from, c_to = a_at + i * row, c_at + i * c_row
        if n > 2 * LANES:
            block(height, 3, a, a_from, row, step, panel, panel_at, c, c_to, c_row, depth, n - 2 * LANES, add)
        elif n > LANES:
            block(height, 2, a, a_from, row, step, panel, panel_at, c, c_to, c_row, depth, n - LANES, add)
        else:
            block(height, 1, a, a_from, row, step, panel, panel_at, c, c_to, c_row, depth, n, add)


def product_executes(m: int, n: int, depth: int, add: bool) -> Ops:
    """What `product` executes: vectors of columns whole, and the old C added to each part of the sum but the first."""
    cells = max(m, 0) * -(-max(n, 0) // LANES) * LANES
    parts = -(-depth // DEPTH)
    return MAC * (cells * depth) + ADD * (cells * (max(parts, 1) - 1 + bool(add)))


@inline
def product(a, a_at, row, step, b, b_at, b_row, c, c_at, c_row, m, n, depth, add, panel, panel_at):
    """C (m, n) ← A (m, depth) · B (depth, n), plus the old C where add is true. a, b, c and panel are addresses.

    Element (i, l) of A is a[a_at + i·row + l·step]; rows of B and C are b_row and c_row elements apart.
    panel[panel_at …]: PANEL elements of scratch.
    """
    even = m // ROWS * ROWS
    for start in range(0, max(depth, 1), DEPTH):  # an empty sum is zero, and written
        deep = min(DEPTH, depth - start)
        for j in range(0, n, VECTORS * LANES):
            width = min(VECTORS * LANES, n - j)
            for l in range(deep):
                for k in range(0, width, LANES):
                    values = load(b, b_at + (start + l) * b_row + j + k, width - k)
                    store(panel, panel_at + l * VECTORS * LANES + k, values, LANES)
            a_from, c_to, more = a_at + start * step, c_at + j, add or start > 0
            rows_of(ROWS, a, a_from, row, step, panel, panel_at, c, c_to, c_row, 0, even, deep, width, more)
            rows_of(1, a, a_from, row, step, panel, panel_at, c, c_to, c_row, even, m, deep, width, more)
