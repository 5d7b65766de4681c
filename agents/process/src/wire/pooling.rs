//! Texts that are computed as a whole.

use artel_engine as engine;

use super::{error, error_of, priority, priority_of, v1};

pub(crate) fn pool_request(request: engine::PoolingRequest) -> v1::PoolRequest {
    let engine::PoolingRequest { input, priority: class, truncates } = request;
    let (query, texts) = match input {
        engine::PooledInput::Texts(texts) => (None, texts),
        engine::PooledInput::Documents { query, documents } => (Some(query), documents),
    };
    v1::PoolRequest { texts, query, priority: priority(class).into(), truncates }
}

pub(crate) fn pool_request_of(wire: v1::PoolRequest) -> engine::PoolingRequest {
    let priority = priority_of(wire.priority());
    let v1::PoolRequest { texts, query, truncates, .. } = wire;
    let input = match query {
        None => engine::PooledInput::Texts(texts),
        Some(query) => engine::PooledInput::Documents { query, documents: texts },
    };
    engine::PoolingRequest { input, priority, truncates }
}

pub(crate) fn pooled(pooled: Result<engine::PooledTexts, engine::Error>) -> v1::PoolResponse {
    match pooled {
        Ok(engine::PooledTexts { vectors, tokens }) => {
            let texts = vectors.into_iter().zip(tokens).map(|(numbers, tokens)| v1::PooledText { numbers, tokens });
            v1::PoolResponse { texts: texts.collect(), error: None }
        }
        Err(failure) => v1::PoolResponse { texts: Vec::new(), error: Some(error(failure)) },
    }
}

pub(crate) fn pooled_of(wire: v1::PoolResponse) -> Result<engine::PooledTexts, engine::Error> {
    if let Some(failure) = wire.error {
        return Err(error_of(failure));
    }
    let (vectors, tokens) = wire.texts.into_iter().map(|text| (text.numbers, text.tokens)).unzip();
    Ok(engine::PooledTexts { vectors, tokens })
}
