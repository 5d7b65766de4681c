//! ggml's tensor types.

/// Elements and bytes of one block of a type, by its `enum ggml_type` value; `None` for a type that ggml does not have or that
/// this crate does not know. A test of `artel-llama` compares them with ggml.
pub fn block_layout(ggml_type: u32) -> Option<(u64, u64)> {
    Some(match ggml_type {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        2 | 20 => (32, 18),    // Q4_0, IQ4_NL
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        9 => (32, 36),         // Q8_1
        39 => (32, 17),        // MXFP4
        40 => (64, 36),        // NVFP4
        42 => (64, 18),        // Q2_0
        41 => (128, 18),       // Q1_0
        10 => (256, 84),       // Q2_K
        11 | 21 => (256, 110), // Q3_K, IQ3_S
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        15 => (256, 292),      // Q8_K
        16 | 35 => (256, 66),  // IQ2_XXS, TQ2_0
        17 => (256, 74),       // IQ2_XS
        18 => (256, 98),       // IQ3_XXS
        19 => (256, 50),       // IQ1_S
        22 => (256, 82),       // IQ2_S
        23 => (256, 136),      // IQ4_XS
        29 => (256, 56),       // IQ1_M
        34 => (256, 54),       // TQ1_0
        _ => return None,
    })
}

/// Whether llama.cpp's CPU backend multiplies matrices of a type only one vector at a time: Q4_1 and Q5_1. Source:
/// `llamafile_sgemm`, `repack.cpp` and `tiled.cpp` of ggml-cpu.
pub(crate) fn has_slow_matmul(ggml_type: u32) -> bool {
    matches!(ggml_type, 3 | 7)
}

/// Whether several elements share a block.
pub(crate) fn is_quantized(ggml_type: u32) -> bool {
    block_layout(ggml_type).is_some_and(|(elements, _)| elements > 1)
}
