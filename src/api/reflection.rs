//! Server reflection: the proto files of everything that a client can see, for clients that
//! have none.
//!
//! It is our own, because the framework's ends the stream with an error when a symbol is
//! unknown. The protocol answers each request of a stream on its own, and clients look for
//! names that may not exist.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Uri;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tonic::{Code, Status, Streaming, body::Body, server::NamedService};
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest as Request, ServerReflectionResponse as Response, ServiceResponse,
    server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};
use tower::Service;

use super::framework;

/// The descriptors of the API cannot be read, which does not happen in a build that passed
/// its tests.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvalidDescriptors(#[from] prost::DecodeError);

/// The proto files, by the names of what they define.
#[derive(Debug, Default)]
pub(super) struct ProtoFiles {
    services: Vec<ServiceResponse>,
    /// Encoded as they were compiled: decoding them drops the options that we do not know.
    files: HashMap<String, Bytes>,
    symbols: HashMap<String, Bytes>,
}

/// A `google.protobuf.FileDescriptorSet` with its files left encoded.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

impl ProtoFiles {
    /// Adds the files of an encoded `FileDescriptorSet`; one that is known is skipped.
    pub(super) fn add(mut self, descriptors: &'static [u8]) -> Result<Self, InvalidDescriptors> {
        for encoded in EncodedFiles::decode(Bytes::from_static(descriptors))?.files {
            let file = FileDescriptorProto::decode(encoded.clone())?;
            if self
                .files
                .insert(file.name().to_owned(), encoded.clone())
                .is_none()
            {
                self.add_symbols(&file, &encoded);
            }
        }
        Ok(self)
    }

    fn add_symbols(&mut self, file: &FileDescriptorProto, encoded: &Bytes) {
        let package = file.package();
        for message in &file.message_type {
            self.add_message(package, message, encoded);
        }
        for enumeration in &file.enum_type {
            self.add_enum(package, enumeration, encoded);
        }
        for service in &file.service {
            let name = self.add_symbol(package, service.name(), encoded);
            for method in &service.method {
                self.add_symbol(&name, method.name(), encoded);
            }
            self.services.push(ServiceResponse { name });
        }
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, encoded: &Bytes) {
        let name = self.add_symbol(scope, message.name(), encoded);
        for nested in &message.nested_type {
            self.add_message(&name, nested, encoded);
        }
        for enumeration in &message.enum_type {
            self.add_enum(&name, enumeration, encoded);
        }
        for field in &message.field {
            self.add_symbol(&name, field.name(), encoded);
        }
        for oneof in &message.oneof_decl {
            self.add_symbol(&name, oneof.name(), encoded);
        }
    }

    /// The values of an enum are in the scope of the enum, not in the enum.
    fn add_enum(&mut self, scope: &str, enumeration: &EnumDescriptorProto, encoded: &Bytes) {
        self.add_symbol(scope, enumeration.name(), encoded);
        for value in &enumeration.value {
            self.add_symbol(scope, value.name(), encoded);
        }
    }

    fn add_symbol(&mut self, scope: &str, name: &str, encoded: &Bytes) -> String {
        let name = format!("{scope}.{name}");
        self.symbols.insert(name.clone(), encoded.clone());
        name
    }

    fn respond(&self, request: Request) -> Response {
        let message = match &request.message_request {
            Some(MessageRequest::ListServices(_)) => {
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self.services.clone(),
                })
            }
            Some(MessageRequest::FileByFilename(name)) => found(self.files.get(name)),
            Some(MessageRequest::FileContainingSymbol(name)) => found(self.symbols.get(name)),
            // There are no extensions.
            Some(MessageRequest::FileContainingExtension(_)) => found(None),
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            None => error(Code::InvalidArgument, "message_request is required"),
        };
        Response {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(message),
        }
    }
}

fn found(file: Option<&Bytes>) -> MessageResponse {
    match file {
        Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
            file_descriptor_proto: vec![file.to_vec()],
        }),
        None => error(Code::NotFound, "this server has no such file or symbol"),
    }
}

fn error(code: Code, message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: code.into(),
        error_message: message.to_owned(),
    })
}

/// The service; clones share the files.
#[derive(Debug, Clone)]
pub(super) struct Reflection(Arc<ProtoFiles>);

impl Reflection {
    pub(super) fn server(files: ProtoFiles) -> ServerReflectionServer<Self> {
        ServerReflectionServer::new(Self(Arc::new(files)))
    }
}

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>>;

    /// A request is read when the client has taken the response to the one before.
    async fn server_reflection_info(
        &self,
        requests: tonic::Request<Streaming<Request>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, Status> {
        let files = Arc::clone(&self.0);
        let responses = requests.into_inner().map(move |request| match request {
            Ok(request) => Ok(files.respond(request)),
            Err(status) => Err(framework::complete(status)),
        });
        Ok(tonic::Response::new(Box::pin(responses)))
    }
}

/// The service under the name that it had before it was stable, which some clients still
/// use. The messages are the same, so only the path is translated.
#[derive(Debug, Clone)]
pub(super) struct V1Alpha<S>(pub(super) S);

impl<S> NamedService for V1Alpha<S> {
    const NAME: &'static str = "grpc.reflection.v1alpha.ServerReflection";
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for V1Alpha<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        let path = request.uri().path().replacen("v1alpha", "v1", 1);
        if let Ok(uri) = Uri::try_from(path) {
            *request.uri_mut() = uri;
        }
        self.0.call(request)
    }
}
