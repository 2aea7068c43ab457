//! What the API answers instead of data.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer whose HTTP status is 400 or above (except `/v1/health`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{error}")]
pub struct ApiError {
    /// The HTTP status again.
    pub status: u16,
    /// What went wrong, a sentence.
    pub error: String,
    /// What to do about it, a sentence. Absent where nothing can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl ApiError {
    /// 400: the request cannot be understood.
    pub fn bad_request(error: impl Into<String>) -> Self {
        Self { status: 400, error: error.into(), remedy: None }
    }

    /// 401: who asks is not known.
    pub fn unauthorized(error: impl Into<String>) -> Self {
        Self { status: 401, error: error.into(), remedy: None }
    }

    /// 403: who asks may not.
    pub fn forbidden(error: impl Into<String>) -> Self {
        Self { status: 403, error: error.into(), remedy: None }
    }

    /// 404: there is no such thing.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self { status: 404, error: error.into(), remedy: None }
    }

    /// 500: the daemon failed.
    pub fn internal(error: impl Into<String>) -> Self {
        Self { status: 500, error: error.into(), remedy: None }
    }

    /// 503: cannot answer now.
    pub fn unavailable(error: impl Into<String>) -> Self {
        Self { status: 503, error: error.into(), remedy: None }
    }

    /// The same with a remedy.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
