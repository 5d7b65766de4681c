//! Calls that are not served.

/// Methods of a service that refuse, with their messages, in the form that `async_trait` gives to a trait.
macro_rules! unsupported {
    ($($method:ident($message:ident) -> $answer:ident;)*) => {$(
        fn $method<'s, 'async_trait>(
            &'s self,
            _: tonic::Request<qdrant_client::qdrant::$message>,
        ) -> std::pin::Pin<
            Box<
                dyn Future<Output = Result<tonic::Response<qdrant_client::qdrant::$answer>, tonic::Status>>
                    + Send
                    + 'async_trait,
            >,
        >
        where
            's: 'async_trait,
            Self: 'async_trait,
        {
            let refusal = tonic::Status::unimplemented(concat!("`", stringify!($method), "` is not served here"));
            Box::pin(std::future::ready(Err(refusal)))
        }
    )*};
}

pub(crate) use unsupported;
