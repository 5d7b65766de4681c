//! Half-precision types: which the CPU computes fast with, and ggml's conversion to them.

use artel_gguf::HalfType;
use llama_cpp_sys_2 as sys;

/// The half type whose products are fast on this machine's CPU, as this build of llama.cpp uses it; `None` if neither is.
pub fn fast_half_type() -> Option<HalfType> {
    // SAFETY: the functions have no arguments and read constants of the build.
    let (has_bf16, has_f16) = unsafe {
        // F16 has no products of its own: eight numbers at a time are converted to F32 and multiplied.
        let has_f16 = sys::ggml_cpu_has_f16c() != 0 && sys::ggml_cpu_has_avx2() != 0 && sys::ggml_cpu_has_fma() != 0;
        (sys::ggml_cpu_has_avx512_bf16() != 0, has_f16)
    };
    if has_bf16 { Some(HalfType::Bf16) } else { has_f16.then_some(HalfType::F16) }
}

/// Converts complete blocks of a type, by its `enum ggml_type` value, to little-endian 16-bit numbers; a part of a block at the
/// end is ignored. `None` for a type that ggml cannot dequantize. An [`artel_gguf::BlockConverter`].
pub fn dequantize_blocks(ggml_type: u32, blocks: &[u8], half: HalfType) -> Option<Vec<u8>> {
    if ggml_type >= sys::GGML_TYPE_COUNT {
        return None;
    }
    // SAFETY: the type is below the length of ggml's table, whose entries are static.
    let traits = unsafe { &*sys::ggml_get_type_traits(ggml_type) };
    let to_float = traits.to_float.filter(|_| traits.type_size > 0)?;
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
    Some(numbers.into_iter().flat_map(u16::to_le_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks of Q4_1 with scale 1 and minimum -2: the steps of the first are all 3, those of the second are 1 or 14.
    fn blocks() -> Vec<u8> {
        [0x33, 0xE1].into_iter().flat_map(|steps| [vec![0x00, 0x3C, 0x00, 0xC0], vec![steps; 16]].concat()).collect()
    }

    #[test]
    fn blocks_become_half_precision_numbers() {
        let numbers = |half| -> Vec<u16> {
            let bytes = dequantize_blocks(sys::GGML_TYPE_Q4_1, &blocks(), half).unwrap();
            bytes.chunks(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]])).collect()
        };
        let of = |one: u16, minus: u16, twelve: u16| [vec![one; 32], vec![minus; 16], vec![twelve; 16]].concat();
        assert_eq!(numbers(HalfType::F16), of(0x3C00, 0xBC00, 0x4A00));
        assert_eq!(numbers(HalfType::Bf16), of(0x3F80, 0xBF80, 0x4140));
    }

    #[test]
    fn a_type_that_ggml_does_not_have_is_not_converted() {
        assert_eq!(dequantize_blocks(sys::GGML_TYPE_COUNT, &[0; 32], HalfType::F16), None);
        assert_eq!(dequantize_blocks(u32::MAX, &[0; 32], HalfType::F16), None);
    }

    #[test]
    fn the_block_layouts_of_artel_gguf_equal_those_of_ggml() {
        for ggml_type in 0..sys::GGML_TYPE_COUNT {
            // SAFETY: both functions read a constant table, and the type is below its length.
            let (elements, bytes) = unsafe { (sys::ggml_blck_size(ggml_type), sys::ggml_type_size(ggml_type)) };
            // Removed types have neither.
            let known = (elements > 0 && bytes > 0).then_some((elements as u64, bytes as u64));
            assert_eq!(artel_gguf::block_layout(ggml_type), known, "type {ggml_type}");
        }
        assert_eq!(artel_gguf::block_layout(sys::GGML_TYPE_COUNT), None);
    }

    #[test]
    fn the_half_types_of_artel_gguf_equal_those_of_ggml() {
        assert_eq!(HalfType::F16.ggml_type(), sys::GGML_TYPE_F16);
        assert_eq!(HalfType::Bf16.ggml_type(), sys::GGML_TYPE_BF16);
    }
}
