//! Whether a file can serve the purpose that its model has in the YAML.

use std::path::Path;

use artel_model::ModelPurpose;

use crate::error::Error;
use crate::header::GgufHeader;

/// The pooling types of llama.cpp that give a vector for a text: mean, first token, last token.
const VECTOR_POOLING: [&str; 3] = ["1", "2", "3"];
/// The pooling type of llama.cpp that gives scores: of a model that ranks texts.
const RANK_POOLING: &str = "4";

/// Refuses a file for a purpose that its pooling does not serve: a model that ranks texts gives a score where an embedding model
/// gives a vector, and llama.cpp aborts at an unknown type of pooling. An embedding model that names no type fails when it first
/// embeds a text.
///
/// # Errors
/// [`Error::Purpose`], which names the `use` that fits.
pub fn check_purpose(path: &Path, header: &GgufHeader, purpose: ModelPurpose) -> Result<(), Error> {
    let pooling = header.metadata.get(&format!("{}.pooling_type", header.architecture)).map(String::as_str);
    let ranks = pooling == Some(RANK_POOLING);
    let refused = |reason: &str| Err(Error::Purpose { path: path.to_owned(), reason: reason.to_owned() });
    match (purpose, pooling) {
        (ModelPurpose::Chat, _) if ranks => refused(
            "this model ranks documents and writes no text: its pooling is that of a reranker; set `use: rerank`, or name another file",
        ),
        (ModelPurpose::Embedding, _) if ranks => refused(
            "this model gives no embedding of a text: its pooling is that of a reranker; set `use: rerank`, or name another file",
        ),
        (ModelPurpose::Embedding, Some(pooling)) if !VECTOR_POOLING.contains(&pooling) => refused(
            "this model gives no embedding of a text: its pooling is neither mean, nor that of the first or the last token; \
             name another file, or remove `use: embedding`",
        ),
        (ModelPurpose::Rerank, Some(pooling)) if VECTOR_POOLING.contains(&pooling) => refused(
            "this model cannot rerank: its pooling gives a vector of a text, and no score; set `use: embedding`, or name the file of \
             a reranker",
        ),
        (ModelPurpose::Rerank, _) if !ranks => refused(
            "this model cannot rerank: it has no rank pooling; name the file of a reranker, or remove `use: rerank`",
        ),
        (ModelPurpose::Rerank, _) if !header.has_rank_head() => refused(
            "this model cannot rerank: it has rank pooling and no head that makes a score, `cls.weight` or `cls.output.weight`; \
             convert it again, as a model for sequence classification",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{TensorInfo, WeightTotals};

    fn header(pooling: Option<&str>, tensors: &[&str]) -> GgufHeader {
        let mut weights = WeightTotals::default();
        for name in tensors {
            let name = (*name).to_owned();
            weights.add(&TensorInfo { name, dimensions: vec![4], ggml_type: 0, offset: 0, bytes: 16 }).unwrap();
        }
        let metadata = pooling.map(|pooling| ("bert.pooling_type".to_owned(), pooling.to_owned()));
        let architecture = "bert".to_owned();
        GgufHeader { architecture, metadata: metadata.into_iter().collect(), weights, ..GgufHeader::default() }
    }

    #[test]
    fn the_error_names_the_use_that_fits() {
        let check = |pooling, tensors: &[&str], purpose| {
            let checked = check_purpose(Path::new("m.gguf"), &header(pooling, tensors), purpose);
            checked.map_err(|error| {
                assert!(!error.is_transient());
                error.to_string()
            })
        };
        let head = ["token_embd.weight", "cls.output.weight"];
        for purpose in [ModelPurpose::Chat, ModelPurpose::Embedding] {
            assert!(check(Some("4"), &head, purpose).unwrap_err().contains("set `use: rerank`"), "{purpose:?}");
            assert_eq!(check(None, &[], purpose), Ok(()));
        }
        assert_eq!(check(Some("4"), &head, ModelPurpose::Rerank), Ok(()));
        assert_eq!(check(Some("4"), &["cls.weight"], ModelPurpose::Rerank), Ok(()));
        for (pooling, tensors, reason) in [
            (Some("4"), &["token_embd.weight"][..], "no head that makes a score"),
            (Some("1"), &head, "set `use: embedding`"),
            (None, &head, "no rank pooling"),
            (Some("9"), &head, "no rank pooling"),
        ] {
            let error = check(pooling, tensors, ModelPurpose::Rerank).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert!(check(Some("9"), &[], ModelPurpose::Embedding).unwrap_err().contains("no embedding of a text"));
    }
}
