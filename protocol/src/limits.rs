//! Every bound on what a peer can make this node hold or compute, with unit and reason.

use std::time::Duration;

// Signed statements and the control log.

/// Bytes of the body of a mesh genesis: a key, a commitment and room for a recovery rule.
pub const GENESIS_BODY: usize = 512;
/// Bytes of the body of an object genesis.
pub const OBJECT_GENESIS_BODY: usize = 128;
/// Bytes of the body of a device's self-description.
pub const DEVICE_KEYS_BODY: usize = 512;
/// Bytes of the body of a control operation: an epoch sealed to [`SEALS_PER_OPERATION`] devices, or a revocation
/// that names the newest statements of one device in [`CUT_ROWS`] objects.
pub const CONTROL_BODY: usize = 131_072;
/// Bytes of the body of a record header.
pub const RECORD_HEADER_BODY: usize = 2_048;
/// Bytes that the envelope of a signed statement adds to its body: key 32, signature 64, CBOR framing.
pub const SIGNED_OVERHEAD: usize = 128;
/// Largest signed statement in bytes, whatever its kind.
pub const SIGNED: usize = CONTROL_BODY + SIGNED_OVERHEAD;

/// Grants between an apex and a holder. Deeper delegation has no use and makes ranks long.
pub const GRANT_DEPTH: usize = 8;
/// Operations in one author's chain of one control log, keys (epochs and seals) not counted: years of use.
pub const CHAIN_OPERATIONS: u32 = 512;
/// Epochs and seals in one author's chain of one control log.
pub const CHAIN_KEY_OPERATIONS: u32 = 4_096;
/// Body bytes in one author's chain of one control log.
pub const CHAIN_BYTES: u64 = 16 << 20;
/// Revocations that one grant may heal.
pub const SEEN: usize = 64;
/// Objects in which one revocation names what is to stand.
pub const CUT_ROWS: usize = 1_024;
/// Newest operations, and newest records, that one row of a revocation names.
pub const CUT_HEADS: usize = 64;
/// Epochs that one epoch supersedes.
pub const EPOCH_PARENTS: usize = 8;
/// Devices to which one operation seals a key, about 160 bytes each; the rest follows in further operations.
pub const SEALS_PER_OPERATION: usize = 384;
/// Generations of a seal key that a device publishes because what was sealed to it did not open: whoever seals rubbish
/// must not use up its chain.
pub const SEAL_COMPLAINTS: u32 = 32;
/// Operations of one control log that wait for something they name.
pub const PENDING_PER_LOG: usize = 256;
/// Bytes of waiting operations over all logs of a node.
pub const PENDING_BYTES: usize = 4 << 20;
/// Control logs that a node holds: meshes of contacts and shared objects.
pub const LOGS: usize = 4_096;

// Capabilities: rights to live acts.

/// Bytes of the body of a capability: an audience, a right with a label, [`CAPABILITY_PEERS`] devices, and numbers.
pub const CAPABILITY_BODY: usize = 1_024;
/// Capabilities in a chain: an operator's, his relay's, a person's and a friend's, and one more. Each costs a check of
/// a signature.
pub const CAPABILITY_LINKS: usize = 5;
/// Bytes of a chain of capabilities.
pub const CAPABILITY_CHAIN: usize = CAPABILITY_LINKS * (CAPABILITY_BODY + SIGNED_OVERHEAD) + 8;
/// Bytes of one message about capabilities: a chain, the name of a lease, and framing.
pub const CAPABILITY_FRAME: usize = CAPABILITY_CHAIN + 64;
/// Devices with a ticket that a relay knows at one time.
pub const ADMITTED: usize = 16_384;
/// Those of them that came by one ticket and what was passed on of it.
pub const ADMITTED_BY_TICKET: usize = 64;
/// Devices to which one caveat restricts the other end.
pub const CAPABILITY_PEERS: usize = 16;
/// Bytes of the name of a service or topic.
pub const LABEL: usize = 64;
/// Time for which a capability is given at most: where no control log is at hand it ends by nothing else.
pub const CAPABILITY_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Difference between two clocks that is let pass, before a capability begins and after it ends.
pub const CLOCK_SKEW: Duration = Duration::from_secs(600);
/// Capabilities that a node keeps fresh: services, topics and relays in use.
pub const LEASES_HELD: usize = 1_024;
/// Capabilities that a node has given and renews, or has withdrawn and still remembers.
pub const LEASES_GIVEN: usize = 4_096;
/// Time until an issuer that does not answer is asked again; doubles. What is younger is not renewed.
pub const RENEW_PAUSE: Duration = Duration::from_secs(10);
/// Longest time until an issuer that does not answer, or has refused, is asked again.
pub const RENEW_PAUSE_MAX: Duration = Duration::from_secs(3_600);

// Pairing.

/// The largest number of a pairing code.
pub const PAIR_NUMBER: u16 = 9_999;
/// Time that a pairing code or link lives: long enough to walk to the other device and type three words.
pub const PAIR_LIFE: Duration = Duration::from_secs(600);
/// Time a peer has for each step that needs no person.
pub const PAIR_STEP: Duration = Duration::from_secs(20);
/// Time a person has to say yes to a newcomer.
pub const PAIR_ANSWER: Duration = Duration::from_secs(300);
/// Time a newcomer has to store what it was given before it says so.
pub const PAIR_STORE: Duration = Duration::from_secs(60);
/// Time a newcomer still waits for other peers after one of them refused its code.
pub const PAIR_LINGER: Duration = Duration::from_secs(3);
/// Time a newcomer looks for the device that shows its code.
pub const PAIR_SEARCH: Duration = Duration::from_secs(60);
/// Newcomers that one offer talks to at a time.
pub const PAIR_ATTEMPTS: usize = 4;
/// Key exchanges that one offer begins; each costs a fraction of a millisecond and none but the last tells anything.
pub const PAIR_EXCHANGES: u32 = 64;
/// Peers on the network that a newcomer asks, and remembers, at a time.
pub const PAIR_PEERS: usize = 32;
/// Peers with which a newcomer tries its code: each gets one guess in 2^33.
pub const PAIR_GUESSES: u32 = 4;
/// Codes that may die of a wrong guess within [`PAIR_PAUSE_WINDOW`] before no new one is given for [`PAIR_PAUSE`].
pub const PAIR_DEAD_CODES: usize = 3;
/// Time after which a dead code is forgotten.
pub const PAIR_PAUSE_WINDOW: Duration = Duration::from_secs(3_600);
/// Time without pairing after too many dead codes.
pub const PAIR_PAUSE: Duration = Duration::from_secs(600);
/// Time a newcomer that asked for our number may spend on other peers that claim it: [`PAIR_GUESSES`] steps and one.
pub const PAIR_TURN: Duration = Duration::from_secs(100);
/// Bytes of one pairing message: a part of the welcome, its tag, and framing.
pub const PAIR_FRAME: usize = 36_864;
/// Bytes of the welcome in one pairing message.
pub const PAIR_PART: usize = 32_768;
/// Bytes of the whole welcome, which holds the control log of a mesh: years of use, in 64 parts.
pub const PAIR_WELCOME: usize = 2 << 20;
/// Bytes of a device's or mesh's name.
pub const NAME: usize = 64;
/// Addresses in a pairing link; more would not fit in a picture that a camera reads.
pub const PAIR_ADDRESSES: usize = 4;
/// Bytes of one network address in text form: one through a relay names that, too.
pub const ADDRESS: usize = 144;
/// Relays of a mesh.
pub const RELAYS: usize = 16;
/// Addresses of one relay.
pub const RELAY_ADDRESSES: usize = 8;
/// Devices whose addresses one frame tells.
pub const SYNC_DEVICES: usize = 64;
/// Devices of a person on his contact card.
pub const CARD_DEVICES: usize = 4;
/// Longest text of a contact card or an invitation, in bytes.
pub const CARD: usize = 4_096;
/// Signed statements in a welcome.
pub const PAIR_ITEMS: usize = 16_384;
/// Addresses in a welcome.
pub const PAIR_WELCOME_ADDRESSES: usize = 32;
/// Bytes of a pairing code, pairing link or recovery phrase as typed.
pub const TYPED: usize = 1_024;

// Coming back with the recovery phrase.

/// Time for the whole conversation of a blank device with a device of its mesh: a welcome over a slow path.
pub const RESTORE_TIME: Duration = Duration::from_secs(60);
/// Time a blank device looks for devices on the network.
pub const RESTORE_SEARCH: Duration = Duration::from_secs(20);
/// Devices that one restore tries, and addresses that it may be given.
pub const RESTORE_PEERS: usize = 32;
/// Statements by which the root lets a blank device in: a grant and a seal key.
pub const RESTORE_STATEMENTS: usize = 2;
/// Keys that are, or were, the root of a mesh, and are let in, for a restore or to be told that they are it no longer.
pub const ROOT_KEYS: usize = 64;

// Folders and transfers.

/// Directories listed in one job at the disk.
pub const LISTINGS_PER_JOB: usize = 1_024;
/// Files read in one job at the disk: their records go out while the next are read.
pub const HASHES_PER_JOB: usize = 1_000;
/// Bytes read in one job at the disk, unless a single file has more.
pub const HASH_JOB_BYTES: u64 = 64 << 20;
/// Bytes of the statements of one control log that are stored as one.
pub const STATEMENTS_STORED: usize = 512 * 1024;
/// Steps of one batch of placing, which share their synchronisation to disk.
pub const STEPS_PER_BATCH: usize = 1_000;
/// Time until a file that changed while it was read is looked at again.
pub const UNSTABLE_PAUSE: Duration = Duration::from_millis(200);
/// Time until directories that are missed are looked for everywhere.
pub const SEARCH_PAUSE: Duration = Duration::from_millis(500);
/// Time until a name that could not be brought in line is tried again; doubles up to 1,024 times.
pub const PLACE_PAUSE: Duration = Duration::from_millis(100);
/// Jobs that one peer is asked for at a time: one is read while the other is under way.
pub const FETCH_JOBS_PER_PEER: usize = 2;
/// Files of one fetch job.
pub const FETCH_JOB_FILES: usize = 512;
/// Bytes of one fetch job, unless a single file has more.
pub const FETCH_JOB_BYTES: u64 = 16 << 20;
/// Time until a peer that lacked a content is asked again; doubles.
pub const FETCH_PAUSE: Duration = Duration::from_millis(500);
/// Longest time until a peer that lacked a content is asked again.
pub const FETCH_PAUSE_MAX: Duration = Duration::from_secs(60);

// Feeds.

/// Operations in one record of a feed.
pub const FEED_OPERATIONS: usize = 1_000;
/// Chains of an object of which a replica remembers that they were let go of, on the word of others.
pub const RETIRED: usize = 65_536;
/// How much higher a record may be than what is held of what it builds on, where some of that was let go of: far more than
/// records can be written, and far too little for heights to come to an end.
pub const HEIGHT_UNKNOWN: u64 = 1 << 32;
/// Records that a device writes in a folder before it considers to list what of them lives, and then begins anew.
pub const CHECKPOINT_AFTER: usize = 1_024;
/// How many records it has to have written for each that the list takes.
pub const CHECKPOINT_GAIN: usize = 4;
/// Chains whose place one checkpoint takes: all that its author had before.
pub const CHECKPOINT_CHAINS: usize = 1_024;
/// Bytes of the plaintext body of one record of a feed.
pub const FEED_BODY: usize = 524_288;
/// Bytes of one component of a path: the limit of every common file system.
pub const FILE_NAME: usize = 255;
/// Chunks listed in the entry of a file itself; larger lists are chunks of their own.
pub const INLINE_CHUNKS: usize = 32;
/// Bytes of the text of a symbolic link: the limit of Linux.
pub const SYMLINK_TARGET: usize = 4_096;
/// Bytes of fields of a later version that one entry carries unread.
pub const UNKNOWN_FIELDS: usize = 1_024;
/// Operations that one operation replaces: versions of one name, shown on one disk at one time.
pub const BASE_DOTS: usize = 1_024;
/// Directories that one operation remembers as having been at its place.
pub const FORMER_DIRECTORIES: usize = 16;
/// Ids of one directory: devices that made it at the same time, unknown to each other.
pub const DIRECTORY_IDS: usize = 1_024;

// Records and their chains.

/// Control heads in a record's header.
pub const RECORD_CONTROL_HEADS: usize = 8;
/// Dependencies in a record's header; a wider frontier is first drawn together by join records.
pub const RECORD_DEPS: usize = 16;
/// Bytes of text in a record's body.
pub const RECORD_TEXT_MAX: usize = (1 << 20) - 5;
/// Bytes that a body may declare for its text, once there is a compression.
pub const RECORD_INFLATED_MAX: usize = 4 << 20;
/// Bytes of an encrypted body without text: nonce 24, tag 16, framing 5.
pub const RECORD_BODY_MIN: usize = 45;
/// Bytes of an encrypted body.
pub const RECORD_BODY_MAX: usize = RECORD_TEXT_MAX + RECORD_BODY_MIN;
/// Bytes of a whole record: envelope, header, body and their framing.
pub const RECORD: usize = RECORD_BODY_MAX + RECORD_HEADER_BODY + SIGNED_OVERHEAD + 16;
/// Branches of all forked chains of one object that are held, unless a record of somebody else builds on one more: each
/// new one makes the whole object be read again.
pub const BRANCHES: usize = 64;
/// Operations of quarantined records that are kept to be shown and taken over, for one object.
pub const QUARANTINE_SHOWN: usize = 10_000;
/// Records of one object that wait for what they build on.
pub const PENDING_RECORDS: usize = 1_024;
/// Bytes of the records of one object that wait for what they build on.
pub const PENDING_RECORD_BYTES: usize = 8 << 20;

// Chunks and the connections that carry them.

/// Bytes of one chunk: four times the largest average.
pub const CHUNK: u32 = 16 << 20;
/// Bytes of a chunk outside of files: a page of a manifest.
pub const BLOB: u32 = 1 << 20;
/// Files and blobs that one request asks for.
pub const FETCH_ITEMS: usize = 512;
/// Chunks of files that one request asks for.
pub const FETCH_CHUNKS: usize = 2_048;
/// Blobs that one request asks for.
pub const FETCH_BLOBS: usize = 64;
/// Bytes of files that one request asks for; with two requests under way it fills a path of 200 ms at 1 Gbit/s.
pub const FETCH_BYTES: u64 = 16 << 20;
/// Bytes of one message of the receiver: 2,048 chunks of 50 bytes and 512 files of 40, and framing.
pub const CHUNK_FRAME: usize = 131_072;
/// Time after which a stream of chunks on which nothing moves is given up.
pub const CHUNK_STALL: Duration = Duration::from_secs(60);
/// Time that a stream of chunks stays open without a request.
pub const CHUNK_IDLE: Duration = Duration::from_secs(300);
/// Streams of chunks that one peer is served at a time.
pub const CHUNK_STREAMS_PER_PEER: usize = 4;
/// Addresses in an offer of a bulk connection.
pub const BULK_ADDRESSES: usize = 16;
/// Time that an offer of a bulk connection stands.
pub const BULK_OFFER: Duration = Duration::from_secs(30);
/// Time that a peer has for the handshake of a bulk connection, and for each address tried.
pub const BULK_HANDSHAKE: Duration = Duration::from_secs(5);
/// Offers of bulk connections that wait to be taken up.
pub const BULK_OFFERS: usize = 64;
/// Bulk connections that have not proved themselves yet.
pub const BULK_STRANGERS: usize = 32;

// Graph.

/// Bytes of one change of an object's graph.
pub const GRAPH_CHANGE: usize = 65_536;
/// Operations in one change.
pub const GRAPH_OPERATIONS: usize = 1_000;
/// Bytes of a key of a graph map.
pub const GRAPH_KEY: usize = 256;
/// Bytes of a value of a graph map.
pub const GRAPH_VALUE: usize = 4_096;
/// Changes on which one change directly depends.
pub const GRAPH_DEPS: usize = 64;
/// Authors that one change mentions.
pub const GRAPH_ACTORS: usize = 256;
/// Earlier operations that one change replaces.
pub const GRAPH_REPLACED: usize = 4_096;
/// Live entries of a graph; beyond, merges take seconds and gigabytes.
pub const GRAPH_ENTRIES: usize = 20_000;
/// Largest operation counter: half of what the library can hold, because it adds to it unchecked.
pub const GRAPH_COUNTER: u64 = 1 << 31;

// The control stream.

/// Bytes of one frame: the largest record and its framing.
pub const SYNC_FRAME: usize = RECORD + 1_024;
/// Bytes of items at which a frame is full, so that nothing waits long behind it.
pub const SYNC_FRAME_FILL: usize = 262_144;
/// Objects whose state one frame tells.
pub const SYNC_OBJECTS: usize = 4_096;
/// Tips of a control log in one frame.
pub const SYNC_CONTROL_HEADS: usize = 8_192;
/// Statements or records in one frame.
pub const SYNC_ITEMS: usize = 4_096;
/// Chains in one frame, and chains of one object that one peer can claim to hold.
pub const SYNC_CHAINS: usize = 16_384;
/// Ranges of records that one frame asks for.
pub const SYNC_RANGES: usize = 512;
/// Chains in one frame that were let go of.
pub const SYNC_RETIRED: usize = 4_096;
/// Records in one answer; then the asker asks again, so that a slow peer holds up little.
pub const SERVE_RECORDS: usize = 1_024;
/// Bytes of records in one answer, unless a single record has more.
pub const SERVE_BYTES: usize = 4 << 20;
/// Answers of records for one object that one peer is given at a time: it has one outstanding, and may have
/// given up on another.
pub const SERVING_PER_OBJECT: usize = 2;
/// Batches of new records sent to one peer unasked and not yet written out; beyond, it is only told of them.
pub const PUSHES_PER_PEER: usize = 32;
/// Objects for which one peer is asked at a time.
pub const WANTS_PER_PEER: usize = 4;
/// Faults that a peer may show before its stream is closed.
pub const STRIKES: u32 = 3;
/// Time without progress after which records are asked of another peer.
pub const WANT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time until a peer that did not deliver what it claims is asked again; doubles each time.
pub const WANT_PAUSE: Duration = Duration::from_secs(1);
/// Longest time until a peer that did not deliver is asked again.
pub const WANT_PAUSE_MAX: Duration = Duration::from_secs(600);
/// Time that a peer has to answer for a control log before its chains are compared all the same.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two full statements or questions about one object to one peer.
pub const STATE_PAUSE: Duration = Duration::from_secs(1);
/// Time in which news of other devices' records is gathered for one frame.
pub const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);
/// Time after which something is sent though there is nothing to say.
pub const KEEP_ALIVE: Duration = Duration::from_secs(90);
/// Time after which a peer that says nothing is given up.
pub const SILENCE: Duration = Duration::from_secs(300);
/// Time between two comparisons of everything with a connected peer.
pub const COMPARE_PAUSE: Duration = Duration::from_secs(900);

// Requests for resources.

/// Bytes of the text form of a resource's path, before any of it is decoded.
pub const RESOURCE_PATH: usize = 2_048;
/// Components of a path; the deepest resource today has four.
pub const RESOURCE_COMPONENTS: usize = 16;
/// Bytes of one component after decoding: the longest name that common file systems hold.
pub const RESOURCE_COMPONENT: usize = 255;
/// Bytes of the body of a request: JSON of commands and settings; file content never travels there.
pub const REQUEST_BODY: usize = 1 << 20;

// The data port of a relay.

/// Time that a channel waits for its two ends: a round trip through the relay and a dial, generously.
pub const SPLICE_VALIDITY: Duration = Duration::from_secs(30);
/// Time that a connection has to present its token.
pub const SPLICE_PREAMBLE: Duration = Duration::from_secs(5);
/// Channels of one device that wait for an end.
pub const SPLICE_WAITING_PER_DEVICE: usize = 16;
/// Channels that wait for an end: 200 bytes each.
pub const SPLICE_WAITING: usize = 4_096;

// Pings.

/// Words that one stream sends back.
pub const PINGS: usize = 100;
/// Time that a word may take there and back.
pub const PING: Duration = Duration::from_secs(10);

// Tunnels to services.

/// Bytes of a message before a tunnel carries anything: an offer with [`BULK_ADDRESSES`], or a label.
pub const TUNNEL_FRAME: usize = 1_024;
/// Time that each message, and the service itself, may take.
pub const TUNNEL_ANSWER: Duration = Duration::from_secs(10);
/// Services that one device offers.
pub const SERVICES: usize = 64;
/// Tunnels of one device that another one serves at a time.
pub const TUNNELS_PER_DEVICE: usize = 64;
/// Tunnels that a device serves at a time.
pub const TUNNELS: usize = 512;
/// Local ports of a node that lead to services of others.
pub const TUNNEL_PORTS: usize = 64;

// Bootstraps.

/// Bootstraps of a mesh.
pub const BOOTSTRAPS: usize = 8;
/// Bytes of every sealed note, and at most of one with a pairing code.
pub const RENDEZVOUS_NOTE: usize = 640;
/// Addresses in a note.
pub const RENDEZVOUS_ADDRESSES: usize = 8;
/// Bytes of a question to a bootstrap: a note and its place.
pub const RENDEZVOUS_ASK: usize = 704;
/// Bytes of an answer: the notes of a place.
pub const RENDEZVOUS_ANSWER: usize = 2_624;
/// Questions on one stream.
pub const RENDEZVOUS_ASKS: usize = 256;
/// Time in which the next question has to come, and a device waits for an answer.
pub const RENDEZVOUS_WAIT: Duration = Duration::from_secs(10);
/// How long a note is kept.
pub const RENDEZVOUS_LIFE: Duration = Duration::from_secs(2 * 3600);
/// Notes at one place: one is right, and nobody but the two devices can name the place.
pub const RENDEZVOUS_NOTES_PER_PLACE: usize = 4;
/// Notes of one device: one for each other device that it deals with.
pub const RENDEZVOUS_NOTES_PER_DEVICE: usize = 128;
/// Notes from one network: /24 of IPv4, /48 of IPv6.
pub const RENDEZVOUS_NOTES_PER_SOURCE: usize = 1_024;
/// Notes in all: 14 MiB.
pub const RENDEZVOUS_NOTES: usize = 16_384;
/// Pairing codes that are shown, or were within [`RENDEZVOUS_QUIET`].
pub const RENDEZVOUS_NUMBERS: usize = 1_024;
/// Pairing codes that are shown in one network.
pub const RENDEZVOUS_NUMBERS_PER_SOURCE: usize = 4;
/// How long the number of a code that is no longer shown rests.
pub const RENDEZVOUS_QUIET: Duration = Duration::from_secs(3600);
/// How often a bootstrap looks for what has had its time.
pub const RENDEZVOUS_SWEEP: Duration = Duration::from_secs(60);
