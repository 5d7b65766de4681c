//! The names of the protos' enum values.

use artel_proto::v1;

/// A proto enum.
pub(crate) trait EnumName {
    /// The name of the value in lower case, without the prefix of its enum.
    fn enum_name(self) -> String;
}

macro_rules! enum_names {
    ($($enum:ident $prefix:literal),* $(,)?) => {
        $(impl EnumName for v1::$enum {
            fn enum_name(self) -> String {
                let name = self.as_str_name();
                name.strip_prefix($prefix).unwrap_or(name).to_lowercase()
            }
        })*
    };
}

enum_names! {
    Priority "PRIORITY_",
    DefinitionKind "DEFINITION_KIND_",
    DeviceKind "DEVICE_KIND_",
    EngineState "ENGINE_STATE_",
    FailureCode "FAILURE_CODE_",
    Layer "LAYER_",
    ResultSource "RESULT_SOURCE_",
    RunState "RUN_STATE_",
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
    fn names_have_no_prefix() {
        assert_eq!(v1::TaskState::Completed.enum_name(), "completed");
        assert_eq!(v1::DeviceKind::IntegratedGpu.enum_name(), "integrated_gpu");
        assert_eq!(v1::FailureCode::LimitSteps.enum_name(), "limit_steps");
    }
}
