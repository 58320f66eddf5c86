//! Resources: the one request type, the same whether a program on this device, a page in a browser
//! or another device asks. Doors only translate to and from it.

use std::{fmt, str::FromStr};

use crate::limits::{REQUEST_BODY, RESOURCE_COMPONENT, RESOURCE_COMPONENTS, RESOURCE_PATH};

/// What a request asks to do with a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Tell its state; changes nothing.
    Get,
    /// Do something, or create a resource whose name the node chooses.
    Post,
    /// Create or replace the resource of this name.
    Put,
    /// Remove it.
    Delete,
}

impl Verb {
    /// The upper-case name, as HTTP writes it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Verb {
    type Err = ResourceParseError;
    fn from_str(text: &str) -> Result<Self, ResourceParseError> {
        [Verb::Get, Verb::Post, Verb::Put, Verb::Delete]
            .into_iter()
            .find(|verb| verb.name() == text)
            .ok_or(ResourceParseError::Verb)
    }
}

/// Why a request was refused before anybody looked at what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResourceParseError {
    /// Not one of the four verbs.
    #[error("the verb is none of GET, POST, PUT and DELETE")]
    Verb,
    /// The path does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// The path has more bytes or components than allowed.
    #[error("the path is longer than {RESOURCE_PATH} bytes or {RESOURCE_COMPONENTS} components")]
    PathTooLong,
    /// A component is empty, `.` or `..`, too long, or holds a slash or a control character.
    #[error("a component of the path is not a clean name")]
    Component,
    /// A percent sign without two hex digits, or bytes that are not UTF-8.
    #[error("the path holds a wrong percent escape")]
    Escape,
    /// The body has more bytes than allowed.
    #[error("the body has {len} bytes where at most {REQUEST_BODY} are allowed")]
    BodyTooLong {
        /// Bytes offered.
        len: usize,
    },
}

/// The address of a resource: clean, decoded components. Its text form percent-encodes them.
///
/// ```
/// # use meshwork_protocol::resource::ResourcePath;
/// let path: ResourcePath = "/v1/folders/My%20photos/status".parse().unwrap();
/// assert_eq!(path.components(), ["v1", "folders", "My photos", "status"]);
/// assert!("/v1/folders/..%2fkey".parse::<ResourcePath>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourcePath {
    components: Vec<String>,
}

impl ResourcePath {
    /// A path of components that are already decoded.
    pub fn new<I>(components: I) -> Result<Self, ResourceParseError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut clean = Vec::new();
        for component in components {
            if clean.len() == RESOURCE_COMPONENTS {
                return Err(ResourceParseError::PathTooLong);
            }
            let component = component.into();
            check_component(&component)?;
            clean.push(component);
        }
        if clean.is_empty() {
            return Err(ResourceParseError::Component);
        }
        Ok(ResourcePath { components: clean })
    }

    /// The decoded components, at least one.
    pub fn components(&self) -> &[String] {
        &self.components
    }
}

impl FromStr for ResourcePath {
    type Err = ResourceParseError;
    fn from_str(text: &str) -> Result<Self, ResourceParseError> {
        if text.len() > RESOURCE_PATH {
            return Err(ResourceParseError::PathTooLong);
        }
        let rest = text.strip_prefix('/').ok_or(ResourceParseError::Relative)?;
        let mut decoded = Vec::new();
        for component in rest.split('/') {
            if decoded.len() == RESOURCE_COMPONENTS {
                return Err(ResourceParseError::PathTooLong);
            }
            decoded.push(percent_decode(component)?);
        }
        ResourcePath::new(decoded)
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for component in &self.components {
            f.write_str("/")?;
            for byte in component.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        write!(f, "{}", char::from(byte))?;
                    }
                    _ => write!(f, "%{byte:02X}")?,
                }
            }
        }
        Ok(())
    }
}

fn check_component(component: &str) -> Result<(), ResourceParseError> {
    let unclean = component.is_empty()
        || component == "."
        || component == ".."
        || component.len() > RESOURCE_COMPONENT
        || component.chars().any(|c| c == '/' || c.is_control());
    if unclean { Err(ResourceParseError::Component) } else { Ok(()) }
}

/// Decodes `%XX` escapes (RFC 3986, 2.1); everything else stands for itself.
fn percent_decode(text: &str) -> Result<String, ResourceParseError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(ResourceParseError::Escape);
        };
        bytes.push(u8::try_from(high << 4 | low).map_err(|_| ResourceParseError::Escape)?);
    }
    String::from_utf8(bytes).map_err(|_| ResourceParseError::Escape)
}

/// A checked request: what to do with which resource, and a JSON body (empty where none is needed).
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    verb: Verb,
    path: ResourcePath,
    body: Vec<u8>,
}

impl Request {
    /// Checks the size of the body; its content is judged by the resource.
    pub fn new(verb: Verb, path: ResourcePath, body: Vec<u8>) -> Result<Self, ResourceParseError> {
        if body.len() > REQUEST_BODY {
            return Err(ResourceParseError::BodyTooLong { len: body.len() });
        }
        Ok(Request { verb, path, body })
    }

    /// What to do.
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// With which resource.
    pub fn path(&self) -> &ResourcePath {
        &self.path
    }

    /// JSON text, or nothing.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Without the body, which can hold a pairing code or words of a recovery phrase.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {}, {} bytes)", self.verb, self.path, self.body.len())
    }
}

/// The answer to a request: a status with the meaning HTTP gives it, and a JSON body.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// 200 to 299 for success.
    pub status: u16,
    /// JSON text.
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the request was granted.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Without the body, which can hold a recovery phrase.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_that_climbs_is_refused() {
        let refused = [
            ("", ResourceParseError::Relative),
            ("v1/status", ResourceParseError::Relative),
            ("/", ResourceParseError::Component),
            ("/v1/", ResourceParseError::Component),
            ("/v1//status", ResourceParseError::Component),
            ("/v1/../status", ResourceParseError::Component),
            ("/v1/%2e%2E", ResourceParseError::Component),
            ("/v1/a%2Fb", ResourceParseError::Component),
            ("/v1/a%00", ResourceParseError::Component),
            ("/v1/a%0a", ResourceParseError::Component),
            ("/v1/%f", ResourceParseError::Escape),
            ("/v1/%", ResourceParseError::Escape),
            ("/v1/%+1", ResourceParseError::Escape),
            ("/v1/%ff", ResourceParseError::Escape),
        ];
        for (text, error) in refused {
            assert_eq!(text.parse::<ResourcePath>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn bounds_hold_at_their_edge() {
        let deep = "/a".repeat(RESOURCE_COMPONENTS);
        assert!(deep.parse::<ResourcePath>().is_ok());
        assert_eq!(format!("{deep}/a").parse::<ResourcePath>(), Err(ResourceParseError::PathTooLong));
        let name = "n".repeat(RESOURCE_COMPONENT);
        assert!(format!("/{name}").parse::<ResourcePath>().is_ok());
        assert_eq!(format!("/{name}n").parse::<ResourcePath>(), Err(ResourceParseError::Component));
        assert_eq!("/".repeat(RESOURCE_PATH + 1).parse::<ResourcePath>(), Err(ResourceParseError::PathTooLong));

        let path: ResourcePath = "/v1/status".parse().expect("a plain path");
        assert!(Request::new(Verb::Post, path.clone(), vec![b' '; REQUEST_BODY]).is_ok());
        let len = REQUEST_BODY + 1;
        assert_eq!(Request::new(Verb::Post, path, vec![b' '; len]), Err(ResourceParseError::BodyTooLong { len }));
    }

    #[test]
    fn verbs_are_exact() {
        assert_eq!("GET".parse(), Ok(Verb::Get));
        assert_eq!("DELETE".parse(), Ok(Verb::Delete));
        assert_eq!("get".parse::<Verb>(), Err(ResourceParseError::Verb));
        assert_eq!("PATCH".parse::<Verb>(), Err(ResourceParseError::Verb));
    }

    #[test]
    fn debug_text_shows_no_body() {
        let path = "/v1/recovery/confirm".parse().expect("a plain path");
        let request = Request::new(Verb::Post, path, b"abandon ability".to_vec()).expect("a small body");
        let response = Response { status: 200, body: b"abandon ability".to_vec() };
        assert!(!format!("{request:?} {response:?}").contains("abandon"));
    }

    proptest! {
        #[test]
        fn text_round_trips(names in proptest::collection::vec("[^/\\p{Cc}]{1,60}", 1..RESOURCE_COMPONENTS)) {
            prop_assume!(names.iter().all(|name| name != "." && name != ".."));
            let path = ResourcePath::new(names).expect("clean names");
            let text = path.to_string();
            prop_assume!(text.len() <= RESOURCE_PATH);
            prop_assert_eq!(text.parse(), Ok(path));
        }

        #[test]
        fn no_text_panics_and_what_passes_is_clean(text in "\\PC*|(/|%|\\.|2|f|e|a){0,40}") {
            if let Ok(path) = text.parse::<ResourcePath>() {
                prop_assert!(path.components().iter().all(|name| check_component(name).is_ok()));
            }
        }
    }
}
