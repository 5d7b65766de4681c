//! The checks of an adapter: it is the one that was trained, under llama.cpp too.

use std::path::Path;
use std::sync::Arc;

use artel_trainer::HELD_OUT_FILE;

use crate::error::RunFailure;
use crate::host::{LossRequest, TrainingHost};
use crate::record::{AdapterFile, HeldOutLosses};

/// The adapter as GGUF, in the directory of a run.
pub(crate) const ADAPTER_FILE: &str = "adapter.gguf";
/// The adapter in PEFT's form.
pub(crate) const ADAPTER_DIR: &str = "adapter";
/// The model in 16 bits, while it is measured.
pub(crate) const BASE_FILE: &str = "base-f16.gguf";
/// How far the loss under llama.cpp may be from the trainer's, as a part of it: both round, and no fault of a conversion is that small.
const MAX_LOSS_DIFFERENCE_RATIO: f64 = 0.01;
/// How far it may be at least, in nats per token: where nearly nothing is left of a loss, rounding is a large part of it.
const MIN_LOSS_TOLERANCE_NATS: f64 = 0.002;

/// Converts the adapter in a run's directory to GGUF. Blocks on the disk.
pub(crate) fn convert(dir: &Path, model_file: &Path) -> Result<AdapterFile, RunFailure> {
    let path = dir.join(ADAPTER_FILE);
    artel_peft::peft_to_gguf(&dir.join(ADAPTER_DIR), model_file, &path)?;
    let bytes = std::fs::metadata(&path).map_err(RunFailure::file("read", &path))?.len();
    let sha256 = artel_files::sha256(std::slice::from_ref(&path)).map_err(RunFailure::file("read", &path))?;
    Ok(AdapterFile { sha256, bytes })
}

/// Measures the adapter by llama.cpp on the weights in 16 bits, which are those that the trainer had, and then on those that serve.
pub(crate) async fn measure(
    host: &Arc<dyn TrainingHost>,
    dir: &Path,
    model_file: &Path,
    losses: HeldOutLosses,
) -> Result<HeldOutLosses, RunFailure> {
    let measure = async |with_adapter: bool, in_16_bits: bool| {
        let request = LossRequest {
            model: model_file.to_owned(),
            adapter: with_adapter.then(|| dir.join(ADAPTER_FILE)),
            in_16_bits: in_16_bits.then(|| dir.join(BASE_FILE)),
            samples: dir.join(HELD_OUT_FILE),
        };
        host.measure(request).await.map(|loss| loss.nats).map_err(RunFailure::Measure)
    };
    let checked = measure(true, true).await?;
    if let Some(trained) = losses.after.filter(|trained| !is_near(checked, *trained)) {
        return Err(RunFailure::LossDiffers { checked, trained });
    }
    let served_before = measure(false, false).await?;
    let served = measure(true, false).await?;
    Ok(HeldOutLosses { checked: Some(checked), served_before: Some(served_before), served: Some(served), ..losses })
}

fn is_near(checked: f64, trained: f64) -> bool {
    (checked - trained).abs() <= (trained.abs() * MAX_LOSS_DIFFERENCE_RATIO).max(MIN_LOSS_TOLERANCE_NATS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_near_within_a_hundredth() {
        assert!(is_near(1.0099, 1.0) && is_near(0.9901, 1.0));
        assert!(!is_near(1.011, 1.0) && !is_near(0.989, 1.0) && !is_near(f64::NAN, 1.0));
        assert!(is_near(0.0019, 0.0001) && !is_near(0.0025, 0.0001));
    }
}
