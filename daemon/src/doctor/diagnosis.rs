//! What the doctor says of one thing.

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) subject: &'static str,
    pub(super) level: DiagnosisLevel,
    pub(super) message: String,
    /// Advice.
    pub(super) help: Option<String>,
}

/// How serious a diagnosis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiagnosisLevel {
    Ok,
    /// A daemon would run, but perhaps not as intended.
    Warning,
    /// A daemon would not start, or could not run all models.
    Error,
}

impl Diagnosis {
    pub(super) fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self { subject, level: DiagnosisLevel::Ok, message: message.into(), help: None }
    }

    pub(super) fn warning(subject: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { subject, level: DiagnosisLevel::Warning, message: message.into(), help: Some(help.into()) }
    }

    pub(super) fn error(subject: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { subject, level: DiagnosisLevel::Error, message: message.into(), help: Some(help.into()) }
    }
}

/// Whether a daemon would start and could run all models.
pub(super) fn is_ok(diagnoses: &[Diagnosis]) -> bool {
    !diagnoses.iter().any(|diagnosis| diagnosis.level == DiagnosisLevel::Error)
}
