//! What the runs of trainings need of the daemon.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use artel_actors::{Runtime, TokenizeError};
use artel_engine::{ChatRole, Token};
use artel_process::measurement::{self, MeasurementRequest, Program};
use artel_roles::Role;
use artel_training::SampleMessage;
use artel_training_runs::{HostError, LossRequest, MeasuredLoss, SampleTokens, TrainingHost};
use async_trait::async_trait;

use crate::engine::environment;
use crate::host::own_program;

/// The engines of the runtime, and a program that measures.
pub(super) struct DaemonTrainingHost {
    runtime: Runtime,
    program: Program,
    threads: u32,
}

impl DaemonTrainingHost {
    pub(super) fn new(runtime: Runtime, threads: u32) -> Result<Self> {
        let (path, env) = (own_program().context("failed to find this program")?, environment::inherited());
        let program = Program { path, args: vec!["measure".into()], env, name: "measure".to_owned() };
        Ok(Self { runtime, program, threads })
    }
}

#[async_trait]
impl TrainingHost for DaemonTrainingHost {
    async fn tokenize(
        &self,
        role: &Arc<Role>,
        messages: &[SampleMessage],
        answer: &str,
    ) -> Result<SampleTokens, HostError> {
        let author = |role: &str| match role {
            "system" => ChatRole::System,
            "assistant" => ChatRole::Assistant,
            _ => ChatRole::User,
        };
        let messages = messages.iter().map(|message| (author(message.role), message.content.as_str()));
        let tokens = self.runtime.tokenize_answer(role, messages, answer).await.map_err(|error| match error {
            TokenizeError::Sample(error) => HostError::Sample(error.to_string()),
            TokenizeError::Runtime(error) => HostError::Unavailable(error.to_string()),
        })?;
        let ids = |tokens: Vec<Token>| tokens.into_iter().map(|token| token.0.cast_unsigned()).collect();
        Ok(SampleTokens { prompt: ids(tokens.prompt), answer: ids(tokens.answer) })
    }

    async fn measure(&self, request: LossRequest) -> Result<MeasuredLoss, HostError> {
        let request = MeasurementRequest {
            model: request.model,
            adapter: request.adapter,
            samples: request.samples,
            f16: request.in_16_bits,
            threads: self.threads,
        };
        let measured = measurement::measure(&self.program, &request).await;
        if let Some(copy) = &request.f16 {
            // A model without quantized weights is measured as it is.
            let _ = tokio::fs::remove_file(copy).await;
        }
        let measured = measured.map_err(|error| match error.is_transient() {
            true => HostError::Unavailable(error.to_string()),
            false => HostError::Refused(error.to_string()),
        })?;
        Ok(MeasuredLoss { nats: measured.mean(), tokens: measured.tokens })
    }
}
