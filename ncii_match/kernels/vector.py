"""Operations that Numba's Python has no words for, written in LLVM's portable instructions.

LLVM lowers them to whatever the processor has (AVX-512, AVX2, NEON, plain scalars). With ``NUMBA_DISABLE_JIT=1`` the
plain Python forms below run instead and give the same bits.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 8
"""Width of the vector sum. Part of ``dot``'s definition (it fixes the order of the additions), not a tuning knob."""

WHOLE_LANES = 16
"""Width of the whole-number sum, where the order does not matter."""

SKETCHES = 32
"""Sketches that ``near_sketches`` compares at a time: one cache line of them."""


def _dot_python(samples: Any, start: int, weights: Any, weight_start: int, blocks: int) -> float:
    sums = np.zeros(LANES)
    for b in range(blocks):
        s, w = start + LANES * b, weight_start + LANES * b
        sums = sums + samples[s : s + LANES].astype(np.float64) * weights[w : w + LANES]
    sums = sums[:4] + sums[4:]
    sums = sums[:2] + sums[2:]
    return float(sums[0] + sums[1])


def _dot_whole_python(samples: Any, start: int, weights: Any, weight_start: int, blocks: int) -> np.int32:
    n = WHOLE_LANES * blocks
    taken = samples[start : start + n].astype(np.int32) * weights[weight_start : weight_start + n]
    return np.int32(taken.sum(dtype=np.int32))


def _dot_llvm(lanes: int, of: Any, widen: str, multiply: str, add: str) -> Any:
    """An intrinsic that sums products of two arrays, ``lanes`` at a time, then folds upper halves onto lower ones."""

    @intrinsic
    def compiled(context_: Any, samples: Any, start: Any, weights: Any, weight_start: Any, blocks: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            wide = ir.VectorType(context.get_data_type(of), lanes)

            def load(position: int, offset: Any) -> Any:
                lane = context.get_data_type(sig.args[position].dtype)
                array = context.make_array(sig.args[position])(context, builder, args[position])
                pointer = builder.gep(array.data, [offset])
                vector = builder.load(builder.bitcast(pointer, ir.VectorType(lane, lanes).as_pointer()))
                vector.align = sig.args[position].dtype.bitwidth // 8
                return vector if vector.type == wide else getattr(builder, widen)(vector, wide)

            sums = cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * lanes))
            with cgutils.for_range(builder, args[4], intp=ir.IntType(64)) as loop:
                step = builder.mul(loop.index, ir.Constant(ir.IntType(64), lanes))
                factors = load(0, builder.add(args[1], step)), load(2, builder.add(args[3], step))
                product = getattr(builder, multiply)(*factors)
                builder.store(getattr(builder, add)(builder.load(sums), product), sums)
            total = builder.load(sums)
            left = lanes
            while left > 1:
                left //= 2
                lanes_of_halves = [list(range(first, first + left)) for first in (0, left)]
                undefined = ir.Constant(total.type, ir.Undefined)
                halves = [
                    builder.shuffle_vector(total, undefined, ir.Constant(ir.VectorType(ir.IntType(32), left), half))
                    for half in lanes_of_halves
                ]
                total = getattr(builder, add)(*halves)
            return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

        return of(samples, types.int64, weights, types.int64, types.int64), codegen

    return compiled


def _dot_eight_python(
    samples: Any, base: int, starts: Any, row: int, first: int, weights: Any, weight_start: int, stride: int,
    blocks: int, unit: float, results: Any, result_start: int,
) -> int:  # fmt: skip
    for c in range(LANES):
        start = base + int(starts[row, first + c])
        value = _dot_python(samples, start, weights, weight_start + c * stride, blocks)
        results[result_start + c] = value * unit
    return LANES


@intrinsic
def _dot_eight_llvm(
    context_: Any, samples: Any, base: Any, starts: Any, row: Any, first: Any, weights: Any, weight_start: Any,
    stride: Any, blocks: Any, unit: Any, results: Any, result_start: Any,
) -> Any:  # fmt: skip
    whole, wide = ir.IntType(64), ir.VectorType(ir.DoubleType(), LANES)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def address(position: int, offset: Any) -> Any:
            array = context.make_array(sig.args[position])(context, builder, args[position])
            return builder.gep(array.data, [offset])

        def load(position: int, offset: Any) -> Any:
            lane = context.get_data_type(sig.args[position].dtype)
            pointer = builder.bitcast(address(position, offset), ir.VectorType(lane, LANES).as_pointer())
            vector = builder.load(pointer)
            vector.align = sig.args[position].dtype.bitwidth // 8
            return vector if vector.type == wide else builder.fpext(vector, wide)

        table = context.make_array(sig.args[2])(context, builder, args[2])
        columns = cgutils.unpack_tuple(builder, table.shape)[1]
        corner = builder.add(builder.mul(args[3], columns), args[4])
        begins = [builder.add(args[1], builder.load(address(2, builder.add(corner, whole(c))))) for c in range(LANES)]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * LANES)) for _ in range(LANES)]
        with cgutils.for_range(builder, args[8], intp=whole) as loop:
            step = builder.mul(loop.index, whole(LANES))
            for c in range(LANES):
                behind = builder.add(args[6], builder.mul(args[7], whole(c)))
                product = builder.fmul(load(0, builder.add(begins[c], step)), load(5, builder.add(behind, step)))
                builder.store(builder.fadd(builder.load(sums[c]), product), sums[c])
        # Fold halves onto each other, two vectors at a time, so that the eight totals end up side by side.
        totals = [builder.load(pointer) for pointer in sums]
        piece = LANES
        while piece > 1:
            piece //= 2
            low = [at for at in range(2 * LANES) if at % (2 * piece) < piece]
            high = [at + piece for at in low]
            masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes) for lanes in (low, high)]
            pairs = zip(totals[::2], totals[1::2], strict=True)
            totals = [builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks)) for a, b in pairs]
        scale = ir.Constant(wide, ir.Undefined)
        for c in range(LANES):
            scale = builder.insert_element(scale, args[9], ir.Constant(ir.IntType(32), c))
        store = builder.store(builder.fmul(totals[0], scale), builder.bitcast(address(10, args[11]), wide.as_pointer()))
        store.align = 8
        return whole(LANES)

    i64, f64 = types.int64, types.float64
    return i64(samples, i64, starts, i64, i64, weights, i64, i64, i64, f64, results, i64), codegen


def _popcount_python(word: Any) -> np.uint64:
    return np.uint64(int(word).bit_count())


@intrinsic
def _popcount_llvm(typing_context: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


def _lowest_bit_python(word: Any) -> int:
    return (int(word) & -int(word)).bit_length() - 1


@intrinsic
def _lowest_bit_llvm(typing_context: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


def _prefetch_python(array: Any, index: Any) -> None:
    """Nothing: a hint changes no result."""


@intrinsic
def _prefetch_llvm(typing_context: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        address = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(hint, [address, number(0), number(3), number(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


def _near_sketches_python(sketches: Any, start: Any, sketch: Any, limit: Any) -> np.uint64:
    taken = np.bitwise_count(np.asarray(sketches[start : start + SKETCHES]) ^ np.uint16(sketch)) <= limit
    return np.uint64(sum(1 << lane for lane in np.flatnonzero(taken).tolist()))


@intrinsic
def _near_sketches_llvm(typing_context: Any, sketches: Any, start: Any, sketch: Any, limit: Any) -> Any:
    lanes = ir.VectorType(ir.IntType(16), SKETCHES)
    undefined, zero = ir.Constant(lanes, ir.Undefined), ir.IntType(32)(0)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), SKETCHES), [0] * SKETCHES)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def spread(number: Any) -> Any:
            return builder.shuffle_vector(builder.insert_element(undefined, number, zero), undefined, everywhere)

        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        taken = builder.load(builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer()))
        taken.align = 2
        count = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(lanes, [lanes]), f"llvm.ctpop.v{SKETCHES}i16"
        )
        distances = builder.call(count, [builder.xor(taken, spread(args[2]))])
        inside = builder.icmp_unsigned("<=", distances, spread(args[3]))
        return builder.zext(builder.bitcast(inside, ir.IntType(SKETCHES)), ir.IntType(64))

    return types.uint64(sketches, types.int64, types.uint16, types.uint16), codegen


def _transpose_rows_python(rows: Any, first: Any, columns: Any, column: Any) -> None:
    columns[:, column : column + LANES] = rows[first : first + LANES].T


@intrinsic
def _transpose_rows_llvm(typing_context: Any, rows: Any, first: Any, columns: Any, column: Any) -> Any:
    word, lanes = ir.IntType(64), ir.VectorType(ir.IntType(64), LANES)

    def mask_of(*lanes_taken: int) -> Any:
        return ir.Constant(ir.VectorType(ir.IntType(32), len(lanes_taken)), list(lanes_taken))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = context.make_array(sig.args[0])(context, builder, args[0]).data
        table = context.make_array(sig.args[2])(context, builder, args[2])
        stride = cgutils.unpack_tuple(builder, table.shape)[1]
        loaded = []
        for part in range(4):  # two rows each
            start = builder.add(builder.mul(args[1], word(4)), word(LANES * part))
            loaded.append(builder.load(builder.bitcast(builder.gep(source, [start]), lanes.as_pointer())))
            loaded[-1].align = 8
        for w in range(4):
            mask = mask_of(w, w + 4, w + 8, w + 12)
            halves = [builder.shuffle_vector(*vectors, mask) for vectors in (loaded[:2], loaded[2:])]
            column = builder.shuffle_vector(*halves, mask_of(*range(LANES)))
            start = builder.add(args[3], builder.mul(stride, word(w)))
            stored = builder.store(column, builder.bitcast(builder.gep(table.data, [start]), lanes.as_pointer()))
            stored.align = 8
        return context.get_dummy_value()

    return types.void(rows, types.int64, columns, types.int64), codegen


popcount = _popcount_python if config.DISABLE_JIT else _popcount_llvm
"""popcount(word): how many bits of a uint64 are set."""

lowest_bit = _lowest_bit_python if config.DISABLE_JIT else _lowest_bit_llvm
"""lowest_bit(word): the number of the lowest bit that is set in a uint64 other than 0."""

prefetch = _prefetch_python if config.DISABLE_JIT else _prefetch_llvm
"""prefetch(array, index): ask for the cache line of element ``index``, counted through all dimensions."""

transpose_rows = _transpose_rows_python if config.DISABLE_JIT else _transpose_rows_llvm
"""transpose_rows(rows, first, columns, column): ``columns[w, column + k] = rows[first + k, w]``, 8 rows of 4 words."""

near_sketches = _near_sketches_python if config.DISABLE_JIT else _near_sketches_llvm
"""near_sketches(sketches, start, sketch, limit): bit k of the result is set where ``sketches[start + k]`` (uint16, k
below 32) differs from ``sketch`` in at most ``limit`` bits. The array must reach 32 elements beyond ``start``."""

if config.DISABLE_JIT:
    dot, dot_whole, dot_eight = _dot_python, _dot_whole_python, _dot_eight_python
else:
    dot = _dot_llvm(LANES, types.float64, "fpext", "fmul", "fadd")
    dot_whole = _dot_llvm(WHOLE_LANES, types.int32, "zext", "mul", "add")
    dot_eight = _dot_eight_llvm
"""dot(samples, start, weights, weight_start, blocks): sum of ``samples[start + k] * weights[weight_start + k]`` over
``8 * blocks`` samples and weights (float32 or float64), eight float64 running sums folded in halves.

dot_eight(samples, base, starts, row, first, weights, weight_start, stride, blocks, unit, results, result_start): eight
such sums, times ``unit``, into ``results[result_start:result_start + 8]``; sum c takes the samples from
``base + starts[row, first + c]`` on and the weights from ``weight_start + c * stride`` on.

dot_whole: the same in int32 over ``16 * blocks`` samples (uint8) and weights (int32)."""
