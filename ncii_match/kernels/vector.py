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
"""Width of the vector sum. Part of the result's definition (it fixes the order of the additions), not a tuning knob."""


def _dot_python(samples: Any, start: int, weights: Any, weight_start: int, blocks: int) -> float:
    sums = np.zeros(LANES)
    for b in range(blocks):
        s, w = start + LANES * b, weight_start + LANES * b
        sums = sums + samples[s : s + LANES].astype(np.float64) * weights[w : w + LANES]
    sums = sums[:4] + sums[4:]
    sums = sums[:2] + sums[2:]
    return float(sums[0] + sums[1])


@intrinsic
def _dot_llvm(typing_context: Any, samples: Any, start: Any, weights: Any, weight_start: Any, blocks: Any) -> Any:
    signature = types.float64(samples, types.int64, weights, types.int64, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def load(position: int, offset: Any) -> Any:
            lanes_of = context.get_data_type(sig.args[position].dtype)
            array = context.make_array(sig.args[position])(context, builder, args[position])
            pointer = builder.gep(array.data, [offset])
            vector = builder.load(builder.bitcast(pointer, ir.VectorType(lanes_of, LANES).as_pointer()))
            vector.align = sig.args[position].dtype.bitwidth // 8
            return vector if lanes_of == double else builder.fpext(vector, wide)

        double = ir.DoubleType()
        wide = ir.VectorType(double, LANES)
        sums = cgutils.alloca_once_value(builder, ir.Constant(wide, [0.0] * LANES))
        with cgutils.for_range(builder, args[4], intp=ir.IntType(64)) as loop:
            step = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            product = builder.fmul(load(0, builder.add(args[1], step)), load(2, builder.add(args[3], step)))
            builder.store(builder.fadd(builder.load(sums), product), sums)
        total = builder.load(sums)
        lanes = LANES
        while lanes > 1:  # fold the upper half onto the lower: a fixed order of additions
            lanes //= 2
            undefined = ir.Constant(total.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    total,
                    undefined,
                    ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes))),
                )
                for first in (0, lanes)
            ]
            total = builder.fadd(halves[0], halves[1])
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return signature, codegen


def _ones_python(word: Any) -> np.uint64:
    return np.uint64(int(word).bit_count())


@intrinsic
def _ones_llvm(typing_context: Any, word: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


ones = _ones_python if config.DISABLE_JIT else _ones_llvm
"""ones(word): how many bits of a uint64 are set."""

dot = _dot_python if config.DISABLE_JIT else _dot_llvm
"""dot(samples, start, weights, weight_start, blocks): sum of ``samples[start + k] * weights[weight_start + k]`` over
``8 * blocks`` samples and weights (float32 or float64), eight float64 running sums folded in halves."""
