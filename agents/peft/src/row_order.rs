//! The order of the rows of queries and keys.
//!
//! Rotary embedding rotates pairs of numbers of a head. In Transformers a pair is one number of the first half and the
//! same of the second; in the GGUF of architecture `llama` the two are neighbours. Source: `LlamaModel.permute` in
//! llama.cpp's conversion, which `convert_lora_to_gguf.py` applies to lora_B; queries take the number of heads, keys
//! that of their own heads.

/// The rows of a matrix of `columns` in the order of GGUF; they are `heads` times an even number.
pub(crate) fn rows_in_gguf(matrix: &[f32], columns: usize, heads: usize) -> Vec<f32> {
    let rows = matrix.len() / columns;
    let from = |row: usize| &matrix[peft_row(row, rows / heads) * columns..][..columns];
    (0..rows).flat_map(from).copied().collect()
}

/// Where the row of a GGUF is in Transformers.
fn peft_row(gguf_row: usize, head_rows: usize) -> usize {
    let (head, row) = (gguf_row / head_rows, gguf_row % head_rows);
    let (pair, half) = (row / 2, row % 2);
    head * head_rows + half * (head_rows / 2) + pair
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the conversion defines it: `reshape(heads, 2, half, columns).swapaxes(1, 2).reshape(rows, columns)`.
    fn by_definition(matrix: &[f32], columns: usize, heads: usize) -> Vec<f32> {
        let half = matrix.len() / columns / heads / 2;
        let mut out = Vec::new();
        for head in 0..heads {
            for pair in 0..half {
                for side in 0..2 {
                    for column in 0..columns {
                        out.push(matrix[((head * 2 + side) * half + pair) * columns + column]);
                    }
                }
            }
        }
        out
    }

    #[test]
    fn the_halves_of_a_head_are_interleaved() {
        let rows: Vec<f32> = (0..12u8).map(f32::from).collect();
        let moved = rows_in_gguf(&rows, 1, 2);
        assert_eq!(moved, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]);
    }

    proptest! {
        #[test]
        fn it_is_the_definition(
            heads in 1..6usize,
            half in 1..9usize,
            columns in 1..5usize,
        ) {
            let matrix: Vec<f32> = (0..heads * half * 2 * columns).map(|at| at as f32).collect();
            prop_assert_eq!(rows_in_gguf(&matrix, columns, heads), by_definition(&matrix, columns, heads));
        }
    }
}
