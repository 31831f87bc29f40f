/* A stand-in for libcuda.so.1, as much of it as numba-cuda and cuda.core ask for.

   Memory is a piece of the host's, kernels are run by the functions that `stand_in` was given. There is one device and
   one context. Whatever is asynchronous is done as late as the driver may: when somebody waits for it. Streams that do
   not wait for the NULL stream have a queue each, all others share one. Names, numbers and structures are those of
   NVIDIA's driver API, CUDA 12.9. What is not here is not found by cuGetProcAddress. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
typedef int R;
typedef uint64_t P;
enum { OK = 0, INVALID = 1, NO_MEMORY = 2, NOT_CAPTURING = 401, NOT_FOUND = 500, CAPTURING = 900, INVALIDATED = 901,
       IMPLICIT = 906 };

typedef struct Work { struct Work *next; int graph; void *to; const void *from; size_t n; int byte; void *staged; } Work;
typedef struct { Work *first, **last; } Queue;
typedef struct Stream { struct Stream *next; int graph; Queue own, *queue; } Stream;  /* graph: that is being built, else 0 */
typedef struct { const void *image; size_t n; } Library;
typedef struct { Library *library; char name[1024]; } Kernel;
typedef R (*Load)(const void *image, size_t n, const char *name, void *kernel);
typedef R (*Launch)(void *kernel, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b, unsigned c, void **args, int graph);
typedef R (*Replay)(int graph);

static struct { Load load; Launch launch; Replay replay; P pool; size_t size, end, room; int capability, version, fails, graphs; } s;
static Stream legacy, *streams;
static Queue shared;                                  /* of the NULL stream and of those that wait for it */
static int current, device_context, spoilt;              /* spoilt: what is being built, by a call that it forbids */
static Stream *building;                                /* what a graph is built of */
static int attributes[256], told[256];                 /* of the device, where `stand_in_tells` says another */

API void stand_in(Load load, Launch launch, Replay replay, P pool, size_t size, int capability, int version)
{
    s.load = load; s.launch = launch; s.replay = replay; s.pool = pool; s.size = s.room = size; s.end = 256;
    s.capability = capability; s.version = version;
}
/* the device has this many bytes of its memory, at most those that it began with */
API void stand_in_has(size_t n) { s.room = n; }
/* an attribute of the device has this value */
API void stand_in_tells(int attribute, int value) { attributes[attribute & 255] = value; told[attribute & 255] = 1; }

static Stream *of(Stream *stream)
{
    if ((uintptr_t)stream < 3) { legacy.queue = &shared; return &legacy; }
    return stream;
}

static void add(Queue *q, Work work)
{
    Work *made = malloc(sizeof *made);
    *made = work;
    made->next = NULL;
    if (!q->first) q->last = &q->first;
    *q->last = made;
    q->last = &made->next;
}
/* all that a queue holds, in order: launches, fills (from is NULL) and copies; the first error */
static R done(Queue *q)
{
    R error = OK;
    while (q->first) {
        Work *w = q->first;
        q->first = w->next;
        if (error) ;
        else if (w->graph) error = s.replay(w->graph);
        else if (w->from) memcpy(w->to, w->from, w->n);
        else memset(w->to, w->byte, w->n);
        free(w->staged);
        free(w);
    }
    return error;
}
static void dropped(Queue *q)
{
    while (q->first) { Work *w = q->first; q->first = w->next; free(w->staged); free(w); }
}
/* from now on every call that works on the GPU gives this error; what is queued never runs */
API void stand_in_fails(int error)
{
    s.fails = error;
    dropped(&shared);
    for (Stream *q = streams; q; q = q->next) dropped(&q->own);
}
static R all_done(void)
{
    R error = done(&shared);
    for (Stream *q = streams; q; q = q->next) { R e = done(&q->own); error = error ? error : e; }
    return error;
}

#define WORKS if (s.fails) return s.fails
#define ALONE if (building) { spoilt = 1; return CAPTURING; }  /* what the driver refuses while a graph is built */
#define SAFE WORKS; ALONE
/* of a call that may be captured: the NULL stream may not be used while one is captured that waits for it */
#define QUEUES(stream) \
    if (building && building->queue == &shared && (uintptr_t)(stream) < 2) { spoilt = 1; return IMPLICIT; }
API R cuInit(unsigned flags) { return s.fails == 100 ? 100 : OK; }
API R cuDriverGetVersion(int *v) { *v = s.version; return OK; }
API R cuDeviceGetCount(int *n) { *n = 1; return OK; }
API R cuDeviceGet(int *d, int i) { *d = i; return i ? 101 : OK; }
API R cuDeviceGetName(char *name, int n, int d) { strncpy(name, "stand-in", n); return OK; }
API R cuDeviceTotalMem(size_t *n, int d) { *n = s.room; return OK; }
API R cuDeviceGetUuid(char *uuid, int d) { memset(uuid, 7, 16); return OK; }
API R cuDeviceGetAttribute(int *v, int which, int d)
{
    if (told[which & 255]) { *v = attributes[which & 255]; return OK; }
    switch (which) {
    case 1: case 2: case 3: *v = 1024; break;          /* threads of a block, and along x and y */
    case 4: *v = 64; break;
    case 5: *v = 2147483647; break;
    case 6: case 7: *v = 65535; break;
    case 8: case 97: *v = 49152; break;                /* shared bytes of a block */
    case 10: *v = 32; break;
    case 12: *v = 65536; break;
    case 13: *v = 1000000; break;                      /* kHz */
    case 16: *v = 2; break;                            /* multiprocessors */
    case 36: *v = 1000000; break;
    case 37: *v = 128; break;
    case 39: *v = 2048; break;
    case 41: *v = 1; break;                            /* unified addressing */
    case 75: *v = s.capability / 10; break;
    case 76: *v = s.capability % 10; break;
    default: *v = 0;
    }
    return OK;
}
API R cuDevicePrimaryCtxRetain(void **c, int d) { WORKS; *c = &device_context; return OK; }
API R cuDevicePrimaryCtxRelease(int d) { return OK; }
API R cuDevicePrimaryCtxReset(int d) { return OK; }
API R cuDevicePrimaryCtxGetState(int d, unsigned *flags, int *active) { *flags = 0; *active = current; return OK; }
API R cuCtxGetCurrent(void **c) { *c = current ? &device_context : NULL; return OK; }
API R cuCtxSetCurrent(void *c) { current = c != NULL; return OK; }
API R cuCtxPushCurrent(void *c) { current = 1; return OK; }
API R cuCtxPopCurrent(void **c) { *c = &device_context; return OK; }
API R cuCtxGetDevice(int *d) { *d = 0; return current ? OK : 201; }
API R cuCtxGetFlags(unsigned *f) { *f = 0; return OK; }
API R cuCtxGetId(void *c, unsigned long long *id) { *id = 1; return OK; }
API R cuCtxGetStreamPriorityRange(int *low, int *high) { *low = *high = 0; return OK; }
API R cuCtxSynchronize(void) { SAFE; return all_done(); }

/* memory: pieces of `held` bytes, of which `n` were asked for; the first that is large enough is cut in two */
typedef struct Piece { struct Piece *next; P at; size_t n, held; } Piece;
static Piece *given_back, *in_use;
static size_t used;
API R cuMemAlloc(P *at, size_t n)
{
    SAFE;
    if (!n) return INVALID;
    size_t held = (n + 511) / 256 * 256;                  /* a gap behind each: what reads beyond its end is found */
    if (used + held > s.room) return NO_MEMORY;
    Piece **p = &given_back, *found;
    while (*p && (*p)->held < held) p = &(*p)->next;
    if (*p) {
        found = *p;
        if (found->held > held) {
            Piece *rest = malloc(sizeof *rest);
            *rest = (Piece){found->next, found->at + held, 0, found->held - held};
            *p = rest;
        } else *p = found->next;
    } else {
        if (s.end + held > s.size) return NO_MEMORY;
        found = malloc(sizeof *found);
        found->at = s.pool + s.end;
        s.end += held;
    }
    *found = (Piece){in_use, found->at, n, held};
    in_use = found; used += held; *at = found->at;
    memset((void *)*at, 0xff, n);                         /* no number in any format of floats */
    return OK;
}
API R cuMemFree(P at)
{
    ALONE
    if (!s.fails) all_done();
    for (Piece **p = &in_use; *p; p = &(*p)->next)
        if ((*p)->at == at) {
            Piece *found = *p;
            *p = found->next; found->next = given_back; given_back = found; used -= found->held;
            return OK;
        }
    return INVALID;
}
/* start and end of what is in use: two numbers each, at most so many */
API int stand_in_ranges(P *into, int most)
{
    int n = 0;
    for (Piece *p = in_use; p && n < most; p = p->next, n++) { into[2 * n] = p->at; into[2 * n + 1] = p->at + p->n; }
    return n;
}
API R cuMemGetInfo(size_t *free_, size_t *total) { WORKS; *free_ = used < s.room ? s.room - used : 0; *total = s.room; return OK; }
API R cuMemGetAddressRange(P *base, size_t *n, P at)
{
    for (Piece *p = in_use; p; p = p->next)
        if (p->at <= at && at < p->at + p->n) { *base = p->at; *n = p->n; return OK; }
    return INVALID;
}
API R cuMemHostAlloc(void **at, size_t n, unsigned flags) { *at = malloc(n); return OK; }
API R cuMemAllocHost(void **at, size_t n) { *at = malloc(n); return OK; }
/* waits for the GPU, which may copy from there or to it yet */
API R cuMemFreeHost(void *at)
{
    ALONE
    if (!s.fails) all_done();
    free(at);
    return OK;
}
API R cuMemHostGetDevicePointer(P *d, void *at, unsigned flags) { *d = (P)at; return OK; }
API R cuMemHostRegister(void *at, size_t n, unsigned flags) { return OK; }
API R cuMemHostUnregister(void *at) { return OK; }
API R cuPointerGetAttribute(void *into, int which, P at)
{
    switch (which) {
    case 2: *(unsigned *)into = at >= s.pool && at < s.pool + s.size ? 2 : 1; break;  /* where: of the GPU or the host */
    case 3: *(P *)into = at; break;
    case 9: *(int *)into = 0; break;
    default: *(void **)into = &device_context;
    }
    return OK;
}

/* the host's numbers are taken now, and arrive when the NULL stream comes to it */
API R cuMemcpyHtoD(P to, const void *from, size_t n)
{
    SAFE;
    void *staged = malloc(n);
    memcpy(staged, from, n);
    add(&shared, (Work){.to = (void *)to, .from = staged, .n = n, .staged = staged});
    return OK;
}
API R cuMemcpyDtoH(void *to, P from, size_t n)
{
    SAFE;
    add(&shared, (Work){.to = to, .from = (void *)from, .n = n});
    return done(&shared);
}
static R copied(void *to, const void *from, size_t n, Stream *q)
{
    SAFE;
    add(of(q)->queue, (Work){.to = to, .from = from, .n = n});
    return OK;
}
API R cuMemcpyDtoD(P to, P from, size_t n) { return copied((void *)to, (void *)from, n, NULL); }
API R cuMemcpyHtoDAsync(P to, const void *from, size_t n, Stream *q) { return copied((void *)to, from, n, q); }
API R cuMemcpyDtoHAsync(void *to, P from, size_t n, Stream *q) { return copied(to, (void *)from, n, q); }
API R cuMemcpyDtoDAsync(P to, P from, size_t n, Stream *q) { return copied((void *)to, (void *)from, n, q); }
API R cuMemsetD8Async(P to, unsigned char v, size_t n, Stream *q)
{
    SAFE;
    add(of(q)->queue, (Work){.to = (void *)to, .n = n, .byte = v});
    return OK;
}
API R cuMemsetD8(P to, unsigned char v, size_t n) { return cuMemsetD8Async(to, v, n, NULL); }

/* bytes of an image: PTX ends with a zero, machine code is an ELF file, which ends with its last section or table */
static size_t length(const void *image)
{
    const Elf64_Ehdr *h = image;
    if (memcmp(image, ELFMAG, SELFMAG)) return strlen(image);
    const Elf64_Shdr *sections = (const void *)((const char *)image + h->e_shoff);
    size_t n = h->e_shoff + h->e_shnum * sizeof *sections, end = h->e_phoff + h->e_phnum * sizeof(Elf64_Phdr);
    if (n < end) n = end;
    for (int i = 0; i < h->e_shnum; i++) {
        end = sections[i].sh_offset + (sections[i].sh_type == SHT_NOBITS ? 0 : sections[i].sh_size);
        if (n < end) n = end;
    }
    return n;
}
API R cuLibraryLoadData(Library **l, const void *image, void *a, void *b, unsigned c, void *d, void *e, unsigned f)
{
    SAFE;
    *l = malloc(sizeof **l);
    (*l)->n = length(image);
    (*l)->image = memcpy(malloc((*l)->n), image, (*l)->n);
    return OK;
}
API R cuLibraryUnload(Library *l) { return OK; }
API R cuLibraryGetKernel(Kernel **k, Library *l, const char *name)
{
    WORKS;
    *k = malloc(sizeof **k);
    (*k)->library = l;
    strncpy((*k)->name, name, sizeof (*k)->name - 1);
    return s.load(l->image, l->n, name, *k);
}
API R cuLibraryGetModule(void **m, Library *l) { *m = l; return OK; }
API R cuLibraryGetGlobal(P *p, size_t *n, Library *l, const char *name) { return NOT_FOUND; }
API R cuKernelGetFunction(void **f, Kernel *k) { *f = k; return OK; }
API R cuKernelGetAttribute(int *v, int which, Kernel *k, int d) { *v = which == 0 ? 1024 : 0; return OK; }
API R cuKernelSetAttribute(int which, int v, Kernel *k, int d) { return OK; }
API R cuKernelSetCacheConfig(Kernel *k, int c, int d) { return OK; }
API R cuFuncGetAttribute(int *v, int which, Kernel *k) { *v = which == 0 ? 1024 : 0; return OK; }
API R cuFuncSetAttribute(Kernel *k, int which, int v) { return OK; }
API R cuModuleGetGlobal(P *p, size_t *n, void *m, const char *name) { return NOT_FOUND; }
API R cuKernelGetLibrary(Library **l, Kernel *k) { *l = k->library; return OK; }

typedef struct { unsigned x, y, z, a, b, c, shared; Stream *stream; void *attributes; unsigned n; } Config;
static R launched(const Config *g, void *k, void **args)
{
    WORKS;
    QUEUES(g->stream)
    if (!g->x || !g->y || !g->z || g->y > 65535 || g->z > 65535 || g->a * g->b * g->c > 1024) return INVALID;
    Stream *q = of(g->stream);
    if (q->graph && spoilt) return INVALIDATED;
    if (q->graph) return s.launch(k, g->x, g->y, g->z, g->a, g->b, g->c, args, q->graph);
    add(q->queue, (Work){.graph = ++s.graphs});
    return s.launch(k, g->x, g->y, g->z, g->a, g->b, g->c, args, s.graphs);
}
API R cuLaunchKernelEx(const Config *g, void *k, void **args, void **extra) { return launched(g, k, args); }
API R cuLaunchKernel(void *k, unsigned x, unsigned y, unsigned z, unsigned a, unsigned b, unsigned c, unsigned bytes,
                     Stream *q, void **args, void **extra)
{
    return launched(&(Config){x, y, z, a, b, c, bytes, q, NULL, 0}, k, args);
}

API R cuStreamCreate(Stream **q, unsigned flags)
{
    WORKS;
    *q = calloc(1, sizeof **q);
    (*q)->queue = flags & 1 ? &(*q)->own : &shared;       /* CU_STREAM_NON_BLOCKING */
    (*q)->next = streams;
    streams = *q;
    return OK;
}
API R cuStreamCreateWithPriority(Stream **q, unsigned flags, int p) { return cuStreamCreate(q, flags); }
API R cuStreamDestroy(Stream *q) { return done(&q->own); }
API R cuStreamSynchronize(Stream *q) { SAFE; return done(of(q)->queue); }
API R cuStreamQuery(Stream *q) { SAFE; return done(of(q)->queue); }
API R cuStreamWaitEvent(Stream *q, void *e, unsigned flags) { return OK; }
API R cuStreamGetCtx(Stream *q, void **c) { *c = &device_context; return OK; }
API R cuStreamGetCtx_v2(Stream *q, void **c, void **g) { *c = &device_context; *g = NULL; return OK; }
API R cuStreamGetDevice(Stream *q, int *d) { *d = 0; return OK; }
API R cuStreamGetFlags(Stream *q, unsigned *f) { *f = 1; return OK; }
API R cuStreamGetPriority(Stream *q, int *p) { *p = 0; return OK; }
API R cuStreamGetId(Stream *q, unsigned long long *id) { *id = (uintptr_t)q; return OK; }
API R cuStreamIsCapturing(Stream *q, int *v) { *v = of(q)->graph != 0; return OK; }
API R cuStreamGetCaptureInfo(Stream *q, int *v, unsigned long long *id, void **g, void *d, void *e, size_t *n)
{
    *v = of(q)->graph != 0;
    if (id) *id = of(q)->graph;
    if (g) *g = (void *)(uintptr_t)of(q)->graph;
    if (n) *n = 0;
    return OK;
}
API R cuStreamBeginCapture(Stream *q, int mode)
{
    SAFE;
    if ((uintptr_t)q < 2) return CAPTURING;               /* the NULL stream cannot be captured */
    building = q; spoilt = 0; q->graph = ++s.graphs;
    return OK;
}
API R cuStreamEndCapture(Stream *q, void **g)
{
    if (!of(q)->graph) return NOT_CAPTURING;
    *g = spoilt ? NULL : (void *)(uintptr_t)of(q)->graph;
    of(q)->graph = 0; building = NULL;
    return spoilt ? INVALIDATED : OK;
}
API R cuGraphInstantiateWithParams(void **x, void *g, void *p) { WORKS; *(int *)((char *)p + 24) = 0; *x = g; return OK; }
API R cuGraphInstantiate(void **x, void *g, unsigned long long flags) { WORKS; *x = g; return OK; }
API R cuGraphInstantiateWithFlags(void **x, void *g, unsigned long long flags) { WORKS; *x = g; return OK; }
API R cuGraphUpload(void *x, Stream *q) { return OK; }
API R cuGraphLaunch(void *x, Stream *q)
{
    SAFE;
    add(of(q)->queue, (Work){.graph = (int)(uintptr_t)x});
    return OK;
}
API R cuGraphDestroy(void *g) { return OK; }
API R cuGraphExecDestroy(void *x) { return OK; }

API R cuGraphGetNodes(void *g, void *nodes, size_t *n) { *n = 0; return OK; }
API R cuGraphGetRootNodes(void *g, void *nodes, size_t *n) { *n = 0; return OK; }
API R cuUserObjectCreate(void **o, void *p, void *destroy, unsigned n, unsigned flags) { *o = calloc(1, 8); return OK; }
API R cuUserObjectRelease(void *o, unsigned n) { return OK; }
API R cuGraphRetainUserObject(void *g, void *o, unsigned n, unsigned flags) { return OK; }
API R cuGraphReleaseUserObject(void *g, void *o, unsigned n) { return OK; }

API R cuEventCreate(void **e, unsigned flags) { *e = calloc(1, 8); return OK; }
API R cuEventRecord(void *e, Stream *q) { WORKS; QUEUES(q) return OK; }
API R cuEventSynchronize(void *e) { SAFE; return all_done(); }
API R cuEventQuery(void *e) { return OK; }
API R cuEventDestroy(void *e) { return OK; }
API R cuEventElapsedTime(float *ms, void *a, void *b) { *ms = 1; return OK; }

API R cuGetErrorName(int e, const char **name)
{
    *name = !e ? "CUDA_SUCCESS" : e == NO_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_STAND_IN";
    return OK;
}
API R cuGetErrorString(int e, const char **words) { *words = e == NO_MEMORY ? "out of memory" : "stand-in"; return OK; }
API R cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status)
{
    static void *self;
    if (!self) { Dl_info info; dladdr((void *)cuInit, &info); self = dlopen(info.dli_fname, RTLD_LAZY); }
    *function = dlsym(self, name);
    if (!strcmp(name, "cuGetProcAddress")) *function = (void *)cuGetProcAddress_v2;
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
API R cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
