//! `artel.v1.Admin`.

use artel_log::LogFilter;
use artel_proto::v1;
use artel_proto::v1::admin_server::Admin;
use tonic::{Request, Response};

use crate::audit::CallObject;
use crate::state::ServiceState;
use crate::status::{RpcResponse, invalid_field};

#[tonic::async_trait]
impl Admin for ServiceState {
    async fn get_log_level(&self, _: Request<v1::GetLogLevelRequest>) -> RpcResponse<v1::LogLevel> {
        let filter = self.log.filter().get().to_string();
        Ok(Response::new(v1::LogLevel { filter, previous_filter: String::new() }))
    }

    async fn set_log_level(&self, request: Request<v1::SetLogLevelRequest>) -> RpcResponse<v1::LogLevel> {
        let object = CallObject::of(&request);
        let filter: LogFilter = request.into_inner().filter.parse().map_err(|error| invalid_field("filter", error))?;
        object.name(&filter);
        let previous_filter = self.log.filter().set(&filter).to_string();
        Ok(Response::new(v1::LogLevel { filter: filter.to_string(), previous_filter }))
    }
}
