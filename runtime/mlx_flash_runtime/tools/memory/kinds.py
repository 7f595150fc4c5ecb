"""MLX's operations by what they do to memory, by their names in a graph (MLX 0.32.4)."""

from __future__ import annotations

# Not of MLX: operations that stand for others, see `stand_ins`. Of the second, results lie with the
# heads of a position side by side.
OPAQUE, BY_POSITION = "Opaque", "OpaqueByPosition"

# The output is the input's memory, seen otherwise.
VIEWS = frozenset(
    [
        *("AsStrided", "Broadcast", "BroadcastAxes", "Copy", "CustomTransforms", "Depends"),
        *("ExpandDims", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "View"),
    ]
)
# Views of an input whose elements lie so that one can be, copies of others.
RESHAPES = frozenset(["Reshape", "Flatten", "Unflatten"])

_UNARY = (
    *("Abs", "ArcCos", "ArcCosh", "ArcSin", "ArcSinh", "ArcTan", "ArcTanh", "AsType"),
    *("BitwiseInvert", "Ceil", "Conjugate", "Cos", "Cosh", "Erf", "ErfInv", "Exp", "Expm1"),
    *("Floor", "Imag", "Log", "Log1p", "LogicalNot", "Negative", "Real", "Remainder", "Round"),
    *("Sigmoid", "Sign", "Sin", "Sinh", "Sqrt", "Square", "Tan", "Tanh"),
)
_BINARY = (
    *("Add", "ArcTan2", "BitwiseBinary", "Divide", "Equal", "Greater", "GreaterEqual", "Less"),
    *("LessEqual", "LogAddExp", "LogicalAnd", "LogicalOr", "Maximum", "Minimum", "Multiply"),
    *("NotEqual", "Power", "Subtract"),
)
# Those that `mx.compile` makes one of.
FUSABLE = frozenset([*_UNARY, *_BINARY, "Select"])
# Of each element by itself: any input may be written over.
ELEMENTWISE = FUSABLE | {
    *("Rsqrt", "Log2", "Log10", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Compiled")
}
# Of each row by itself, and of a part: the first input may be written over.
NORMS = frozenset(["Softmax", "RMSNorm", "LayerNorm"])
UPDATES = frozenset(["SliceUpdate", "DynamicSliceUpdate"])
# Of matrices, those the first two inputs.
PRODUCTS = frozenset(["Matmul", "AddMM"])
ROPE, ATTENTION = "RoPE", "ScaledDotProductAttention"
ATTENTION_GRADIENT = "ScaledDotProductAttentionVJP"
LOSS_GRADIENT = "CrossEntropyVJP"
NORM_GRADIENTS = ("RMSNormVJP", "LayerNormVJP")
FILL, SELECT, CONCATENATE = "Full", "Select", "Concatenate"
# Whatever the size of the memory that they are written over.
OF_ANY_SIZE = NORMS | {ROPE, "Compiled"}
