//! `artel.v1.Models`.

mod parse;

use artel_actors::{Error, PooledTexts, TextsRequest};
use artel_proto::v1;
use artel_proto::v1::models_server::Models;
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

use crate::call_tracer::trace_of;
use crate::field_error::FieldError;
use crate::size::{DEFAULT_RESPONSE_BYTES, too_large};
use crate::state::ServiceState;
use crate::status::{RpcResponse, internal, invalid_field};
use crate::viewer::viewer_of;

#[tonic::async_trait]
impl Models for ServiceState {
    async fn embed(&self, request: Request<v1::EmbedRequest>) -> RpcResponse<v1::EmbedResponse> {
        let (viewer, trace) = (viewer_of(&request), trace_of(&request));
        let (texts, dimensions) = parse::embed(request.into_inner(), viewer)?;
        let pooled = self.pool(TextsRequest { trace, ..texts }, "inputs").await?;
        let prompt_tokens = u64::from(pooled.total_tokens());
        let embeddings = pooled.vectors.into_iter().zip(pooled.tokens);
        let embeddings =
            embeddings.map(|(values, tokens)| Ok(v1::Embedding { values: shortened(values, dimensions)?, tokens }));
        let embeddings = embeddings.collect::<Result<_, Status>>()?;
        within_limit(v1::EmbedResponse { embeddings, prompt_tokens })
    }

    async fn rerank(&self, request: Request<v1::RerankRequest>) -> RpcResponse<v1::RerankResponse> {
        let (viewer, trace) = (viewer_of(&request), trace_of(&request));
        let (texts, top_n) = parse::rerank(request.into_inner(), viewer)?;
        let pooled = self.pool(TextsRequest { trace, ..texts }, "documents").await?;
        let prompt_tokens = u64::from(pooled.total_tokens());
        let results = ranked(pooled, top_n).ok_or_else(|| {
            tracing::error!("a model that reranks gave no score");
            internal()
        })?;
        Ok(Response::new(v1::RerankResponse { results, prompt_tokens }))
    }
}

impl ServiceState {
    /// `field` holds the texts.
    async fn pool(&self, request: TextsRequest, field: &str) -> Result<PooledTexts, Status> {
        self.runtime.pool(request).await.map_err(|error| match &error {
            Error::TextTooLong { index: Some(index), .. } => invalid_field(&format!("{field}[{index}]"), &error),
            Error::TextTooLong { index: None, .. } => invalid_field("query", &error),
            _ => self.status_of(error),
        })
    }
}

/// The first numbers of a unit vector, as a unit vector. 0: all of them.
fn shortened(mut values: Vec<f32>, dimensions: usize) -> Result<Vec<f32>, Status> {
    if dimensions > values.len() {
        let error = FieldError::TooManyDimensions { dimensions, limit: values.len() };
        return Err(invalid_field("dimensions", error));
    }
    if (1..values.len()).contains(&dimensions) {
        values.truncate(dimensions);
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            values.iter_mut().for_each(|value| *value /= length);
        }
    }
    Ok(values)
}

/// The best documents, at most `top_n` unless it is 0; `None` if one has no score.
fn ranked(pooled: PooledTexts, top_n: usize) -> Option<Vec<v1::RankedDocument>> {
    let documents =
        (0u32..).zip(pooled.vectors).zip(pooled.tokens).map(|((index, numbers), tokens)| match numbers[..] {
            [score, relevance] => Some(v1::RankedDocument { index, score, relevance, tokens }),
            _ => None,
        });
    let mut documents = documents.collect::<Option<Vec<_>>>()?;
    // The sort is stable: of equal ones, the lower index stays first.
    documents.sort_by(|a, b| b.score.total_cmp(&a.score));
    if top_n > 0 {
        documents.truncate(top_n);
    }
    Some(documents)
}

fn within_limit(response: v1::EmbedResponse) -> RpcResponse<v1::EmbedResponse> {
    let bytes = response.encoded_len();
    if bytes <= DEFAULT_RESPONSE_BYTES {
        return Ok(Response::new(response));
    }
    let message = format!(
        "the embeddings have {bytes} bytes and the limit is {DEFAULT_RESPONSE_BYTES}: send fewer texts at once, or ask for fewer \
         `dimensions`"
    );
    Err(too_large(Code::ResourceExhausted, bytes, DEFAULT_RESPONSE_BYTES, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_ranked_by_score_and_of_equal_ones_by_index() {
        let scores = [0.5, 2.0, -3.0, 2.0];
        let pooled = || PooledTexts { vectors: scores.map(|score| vec![score, 0.5]).to_vec(), tokens: vec![3; 4] };
        let indices = |top_n| ranked(pooled(), top_n).unwrap().iter().map(|d| d.index).collect::<Vec<_>>();
        assert_eq!((indices(0), indices(2), indices(9)), (vec![1, 3, 0, 2], vec![1, 3], vec![1, 3, 0, 2]));
        assert!(ranked(PooledTexts { vectors: vec![vec![1.0; 384]], tokens: vec![1] }, 0).is_none());
    }

    #[test]
    fn a_shortened_vector_is_a_unit_vector_of_so_many_numbers() {
        let vector = || vec![0.6, 0.0, 0.8];
        assert_eq!((shortened(vector(), 0).unwrap(), shortened(vector(), 3).unwrap()), (vector(), vector()));
        assert_eq!(shortened(vector(), 1).unwrap(), [1.0]);
        let refused = shortened(vector(), 4).unwrap_err();
        assert!(
            refused.message().contains("dimensions: is 4, and the vectors of this model have 3 numbers"),
            "{refused}"
        );
        assert_eq!(shortened(vec![0.0, 1.0], 1).unwrap(), [0.0], "nothing is divided by nothing");
    }

    #[test]
    fn embeddings_that_a_client_would_not_take_are_refused() {
        let of = |texts: usize| {
            let embedding = v1::Embedding { values: vec![0.5; 8192], tokens: 1 };
            within_limit(v1::EmbedResponse { embeddings: vec![embedding; texts], prompt_tokens: 1 })
        };
        assert!(of(127).is_ok());
        assert!(of(256).unwrap_err().message().contains("send fewer texts"));
    }
}
