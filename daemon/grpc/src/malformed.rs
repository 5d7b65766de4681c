//! The error for a request that cannot be decoded.

use artel_proto::v1::ErrorReason;
use axum::response::Response;
use tonic::{Code, Status};

use crate::status::status;

/// The prefix of prost's message for bytes that are not the expected message, or nest too deep. The reason follows.
const UNDECODABLE_PREFIX: &str = "failed to decode Protobuf message: ";

/// Reports a request that cannot be decoded as the client's fault: tonic reports it as one of the daemon.
pub(crate) fn with_decode_details(response: Response) -> Response {
    let Some(reason) = decode_error(&response) else { return response };
    let message = format!("the request cannot be decoded: {reason}");
    status(Code::InvalidArgument, ErrorReason::BadRequest, message).into_http()
}

/// Why tonic could not decode the request.
fn decode_error(response: &Response) -> Option<String> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() == Code::Internal)?;
    let error = status.message().strip_prefix(UNDECODABLE_PREFIX)?;
    // Before the reason stand the fields around the place, up to a hundred, the outermost last.
    let is_field = |part: &&str| part.contains('.') && !part.contains(' ');
    let field = error.split(": ").take_while(is_field).last();
    let reason: Vec<&str> = field.into_iter().chain(error.split(": ").skip_while(is_field)).collect();
    Some(reason.join(": "))
}

#[cfg(test)]
mod tests {
    use artel_proto::v1;
    use prost::Message as _;
    use prost_types::value::Kind;

    use super::*;

    #[test]
    fn a_request_that_cannot_be_decoded_is_the_clients_fault() {
        let answered = |message: String| {
            let response = with_decode_details(Status::internal(message).into_http());
            let status = Status::from_header_map(response.headers()).unwrap();
            (status.code(), status.message().to_owned())
        };
        let error = |bytes: &[u8]| v1::AnswerRequest::decode(bytes).unwrap_err().to_string();
        let message = |reason: &str| (Code::InvalidArgument, format!("the request cannot be decoded: {reason}"));
        assert_eq!(answered(error(&[0xff; 4])), message("invalid varint"));
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let lists = (0..60).fold(value(Kind::NullValue(0)), |inner, _| {
            value(Kind::ListValue(prost_types::ListValue { values: vec![inner] }))
        });
        let deep = v1::AnswerRequest { answer: Some(v1::answer_request::Answer::Json(lists)), ..Default::default() };
        assert_eq!(answered(error(&deep.encode_to_vec())), message("AnswerRequest.answer: recursion limit reached"));
        assert_eq!(answered("a fault".to_owned()), (Code::Internal, "a fault".to_owned()));
    }
}
