//! The enums of the contract as words.

use artel_proto::v1;

/// An enum whose values have a word each.
pub(crate) trait Word {
    /// Lower case, without the prefix.
    fn word(self) -> String;
}

macro_rules! words {
    ($($enum:ident $prefix:literal),* $(,)?) => {
        $(impl Word for v1::$enum {
            fn word(self) -> String {
                let name = self.as_str_name();
                name.strip_prefix($prefix).unwrap_or(name).to_lowercase()
            }
        })*
    };
}

words! {
    Class "CLASS_",
    DefinitionKind "DEFINITION_KIND_",
    DeviceKind "DEVICE_KIND_",
    EngineState "ENGINE_STATE_",
    FailureCode "FAILURE_CODE_",
    Layer "LAYER_",
    ResultSource "RESULT_SOURCE_",
    Severity "SEVERITY_",
    SplitMode "SPLIT_MODE_",
    StepState "STEP_STATE_",
    TaskState "TASK_STATE_",
    WaitingReason "WAITING_REASON_",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_no_prefix() {
        assert_eq!(v1::TaskState::Completed.word(), "completed");
        assert_eq!(v1::DeviceKind::IntegratedGpu.word(), "integrated_gpu");
        assert_eq!(v1::FailureCode::LimitSteps.word(), "limit_steps");
    }
}
