//! Number formats of tensors.

use llama_cpp_sys_2 as sys;

use crate::gguf::Half;

/// Whether the processor multiplies BF16.
pub(crate) fn has_bf16() -> bool {
    // SAFETY: it says what the program was compiled for.
    unsafe { sys::ggml_cpu_has_avx512_bf16() != 0 }
}

/// Whether the processor turns F16 into F32 and multiplies that, eight numbers at a time.
pub(crate) fn has_f16() -> bool {
    // SAFETY: as above.
    unsafe { sys::ggml_cpu_has_f16c() != 0 && sys::ggml_cpu_has_avx2() != 0 && sys::ggml_cpu_has_fma() != 0 }
}

/// Whole blocks of a type as numbers of two bytes, as files have them. A type that ggml cannot read gives nothing.
pub(crate) fn to_half(kind: u32, blocks: &[u8], half: Half) -> Vec<u8> {
    if kind >= sys::GGML_TYPE_COUNT {
        return Vec::new();
    }
    // SAFETY: the kind is below the length of ggml's table, whose entries live for ever.
    let traits = unsafe { &*sys::ggml_get_type_traits(kind) };
    let Some(to_float) = traits.to_float.filter(|_| traits.type_size > 0) else { return Vec::new() };
    let elements = blocks.len() / traits.type_size * traits.blck_size as usize;
    let mut floats = vec![0f32; elements];
    let mut numbers = vec![0u16; elements];
    // SAFETY: the blocks hold as many elements as both vectors have, and a BF16 of ggml is its 16 bits.
    unsafe {
        to_float(blocks.as_ptr().cast(), floats.as_mut_ptr(), elements as i64);
        match half {
            Half::F16 => sys::ggml_fp32_to_fp16_row(floats.as_ptr(), numbers.as_mut_ptr(), elements as i64),
            Half::Bf16 => sys::ggml_fp32_to_bf16_row(floats.as_ptr(), numbers.as_mut_ptr().cast(), elements as i64),
        }
    }
    numbers.into_iter().flat_map(u16::to_le_bytes).collect()
}
