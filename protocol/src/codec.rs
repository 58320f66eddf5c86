//! Bytes: strict DAG-CBOR, the one encoding of everything that is signed, stored or sent.
//!
//! Structs are arrays in the order of their fields, enums `[tag, ...]`, keys and hashes byte strings;
//! there is no map, float, tag or null. A decoder accepts exactly what the encoder writes: after
//! decoding, the value is encoded again and must give the same bytes.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind may have; nothing was parsed.
    #[error("{len} bytes where at most {max} are allowed")]
    Oversize {
        /// Bytes offered.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not the encoding of a value of this type.
    #[error("malformed encoding")]
    Malformed,
    /// Decodes, but another encoding of the same value is the canonical one.
    #[error("not in canonical form")]
    NonCanonical,
}

/// The canonical bytes of a value.
///
/// Types of this crate are built so that this cannot fail: no maps with other keys than text, no
/// floats, no integers beyond 64 bits.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).expect("wire types hold nothing that DAG-CBOR cannot carry")
}

/// Decodes a value from at most `max` bytes, refusing every encoding but the canonical one.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::Oversize { len: bytes.len(), max });
    }
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|_| DecodeError::Malformed)?;
    if encode(&value) != bytes {
        return Err(DecodeError::NonCanonical);
    }
    Ok(value)
}

/// Encodes a struct as an array of the named fields, in the order they are named here.
///
/// ```
/// # use meshwork_protocol::{codec, wire_struct};
/// #[derive(Debug, PartialEq)]
/// struct Pair { left: u8, right: bool }
/// wire_struct!(Pair { left, right });
/// assert_eq!(codec::encode(&Pair { left: 1, right: true }), [0x82, 0x01, 0xf5]);
/// ```
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::SerializeTuple as _;
                let mut tuple = serializer.serialize_tuple([$(stringify!($field)),+].len())?;
                $(tuple.serialize_element(&self.$field)?;)+
                tuple.end()
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> ::serde::de::Visitor<'de> for Fields {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("the fields of ", stringify!($name)))
                    }
                    fn visit_seq<A: ::serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        Ok($name { $($field: $crate::codec::next_field(&mut seq)?,)+ })
                    }
                }
                deserializer.deserialize_tuple([$(stringify!($field)),+].len(), Fields)
            }
        }
    };
}

/// Encodes an enum with named (or no) fields as `[tag, field, ...]`.
///
/// ```
/// # use meshwork_protocol::{codec, wire_enum};
/// #[derive(Debug, PartialEq)]
/// enum Move { Stay {}, Go { steps: u8 } }
/// wire_enum!(Move { 0 => Stay {}, 1 => Go { steps } });
/// assert_eq!(codec::encode(&Move::Go { steps: 7 }), [0x82, 0x01, 0x07]);
/// assert_eq!(codec::decode(&[0x82, 0x01, 0x07], 16), Ok(Move::Go { steps: 7 }));
/// assert!(codec::decode::<Move>(&[0x81, 0x09], 16).is_err());
/// ```
#[macro_export]
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident { $($field:ident),* $(,)? }),+ $(,)? }) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use ::serde::ser::SerializeTuple as _;
                match self {
                    $($name::$variant { $($field),* } => {
                        let fields: &[&str] = &[$(stringify!($field)),*];
                        let mut tuple = serializer.serialize_tuple(1 + fields.len())?;
                        tuple.serialize_element(&($tag as u8))?;
                        $(tuple.serialize_element($field)?;)*
                        tuple.end()
                    })+
                }
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Tagged;
                impl<'de> ::serde::de::Visitor<'de> for Tagged {
                    type Value = $name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("a tag and the fields of ", stringify!($name)))
                    }
                    fn visit_seq<A: ::serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        match $crate::codec::next_field::<u8, A>(&mut seq)? {
                            $($tag => Ok($name::$variant { $($field: $crate::codec::next_field(&mut seq)?,)* }),)+
                            tag => Err(::serde::de::Error::custom(format_args!(
                                "{tag} is no variant of {}", stringify!($name)
                            ))),
                        }
                    }
                }
                deserializer.deserialize_seq(Tagged)
            }
        }
    };
}

/// The next element of an array that must have one; for [`wire_struct!`] and [`wire_enum!`].
#[doc(hidden)]
pub fn next_field<'de, T: serde::Deserialize<'de>, A: serde::de::SeqAccess<'de>>(seq: &mut A) -> Result<T, A::Error> {
    seq.next_element()?.ok_or_else(|| serde::de::Error::custom("too few fields"))
}

/// Gives an enum of reasons `ALL` of them, in the order of their codes, and the way to and from the code: its number, a byte
/// on the wire.
///
/// ```
/// use meshwork_protocol::wire_codes;
///
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// pub enum Refusal {
///     Busy = 7,
///     Full = 9,
/// }
/// wire_codes!(Refusal { Busy, Full });
/// assert_eq!(Refusal::ALL.map(Refusal::code), [7, 9]);
/// assert_eq!(Refusal::from_code(9), Some(Refusal::Full));
/// assert_eq!(Refusal::from_code(8), None);
/// ```
#[macro_export]
macro_rules! wire_codes {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];

            /// As it stands on the wire.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// The one of this code; a code that this version does not know is none of them.
            pub fn from_code(code: u8) -> Option<Self> {
                Self::ALL.into_iter().find(|known| known.code() == code)
            }
        }
    };
}
