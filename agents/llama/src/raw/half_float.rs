//! Half-precision types: CPU support and conversion.

use llama_cpp_sys_2 as sys;

use crate::gguf::HalfType;

/// Whether the CPU has BF16 products.
pub(crate) fn has_bf16() -> bool {
    // SAFETY: the function has no arguments and reads constants of the build.
    unsafe { sys::ggml_cpu_has_avx512_bf16() != 0 }
}

/// Whether the CPU converts F16 to F32 and multiplies eight numbers at a time.
pub(crate) fn has_f16() -> bool {
    // SAFETY: as above.
    unsafe { sys::ggml_cpu_has_f16c() != 0 && sys::ggml_cpu_has_avx2() != 0 && sys::ggml_cpu_has_fma() != 0 }
}

/// Dequantizes complete blocks of a type to little-endian 16-bit numbers. Empty for a type that ggml cannot dequantize.
pub(crate) fn dequantize(ggml_type: u32, blocks: &[u8], half: HalfType) -> Vec<u8> {
    if ggml_type >= sys::GGML_TYPE_COUNT {
        return Vec::new();
    }
    // SAFETY: the type is below the length of ggml's table, whose entries are static.
    let traits = unsafe { &*sys::ggml_get_type_traits(ggml_type) };
    let Some(to_float) = traits.to_float.filter(|_| traits.type_size > 0) else { return Vec::new() };
    let elements = blocks.len() / traits.type_size * traits.blck_size as usize;
    let mut floats = vec![0f32; elements];
    let mut numbers = vec![0u16; elements];
    // SAFETY: the blocks hold `elements` elements, as do both vectors, and ggml represents a BF16 by its 16 bits.
    unsafe {
        to_float(blocks.as_ptr().cast(), floats.as_mut_ptr(), elements as i64);
        match half {
            HalfType::F16 => sys::ggml_fp32_to_fp16_row(floats.as_ptr(), numbers.as_mut_ptr(), elements as i64),
            HalfType::Bf16 => sys::ggml_fp32_to_bf16_row(floats.as_ptr(), numbers.as_mut_ptr().cast(), elements as i64),
        }
    }
    numbers.into_iter().flat_map(u16::to_le_bytes).collect()
}
