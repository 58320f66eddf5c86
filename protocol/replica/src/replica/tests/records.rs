//! Records that are forged, back-dated, replayed, or do not fit.

use super::*;

/// Sends a record that must be refused: nothing changes but the counter, which only this error raises.
fn refused(scene: &mut Scene, record: Vec<u8>, counter: impl Fn(&ReceiveCounters) -> u64) -> Option<String> {
    refused_in(scene, scene.folder, record, counter)
}

fn refused_in(
    scene: &mut Scene,
    object: ObjectId,
    record: Vec<u8>,
    counter: impl Fn(&ReceiveCounters) -> u64,
) -> Option<String> {
    let (before, count) = (scene.state(), scene.counters(object));
    let error = scene.send_record(object, record);
    let after = scene.counters(object);
    assert_eq!(counter(&after), counter(&count) + 1);
    assert_eq!(after.admitted, count.admitted, "nothing is admitted");
    assert_eq!(scene.state(), before, "nothing has changed");
    error.into_iter().next()
}

/// Sends a record that is held and contributes nothing.
fn held_and_void(scene: &mut Scene, record: Vec<u8>, counter: impl Fn(&ReceiveCounters) -> u64) {
    let object = scene.folder;
    let (before, count) = (scene.shown(), scene.counters(object));
    assert_eq!(scene.send_record(object, record), [""; 0]);
    let after = scene.counters(object);
    assert_eq!((counter(&after), after.admitted), (counter(&count) + 1, count.admitted + 1));
    assert_eq!(scene.shown(), before, "nothing is shown of it");
}

fn attacker() -> DeviceKey {
    DeviceKey::from_bytes(&[2; 32])
}

/// A record of the attacker whose body decrypts to these bytes.
fn with_plain(scene: &mut Scene, plain: &[u8]) -> Vec<u8> {
    let object = scene.folder;
    let record = scene.write_link("x");
    let mut record: Record = codec::decode(&record, limits::RECORD).unwrap();
    let mut header: Header = record.signed.open(Kind::RecordHeader).unwrap();
    let Scene { rng, nodes, .. } = scene;
    let key = nodes[ATTACKER].replica.keyring.key(object, header.epoch).unwrap();
    let body = key.encrypt(rng, &header.associated_data(&attacker().device_id()), plain);
    header.body_hash = ByteArray::new(*blake3::hash(&body).as_bytes());
    header.body_len = body.len() as u32;
    record.signed = attacker().sign(Kind::RecordHeader, codec::encode(&header));
    record.body = ByteBuf::from(body);
    codec::encode(&record)
}

#[test]
fn an_honest_record_goes_in_and_is_shown() {
    let mut scene = Scene::new();
    let (record, before) = (scene.write_link("a"), scene.state());
    assert_eq!(scene.send_record(scene.folder, record), [""; 0]);
    assert_ne!(scene.state(), before, "the control of all that follows");
    assert_eq!(scene.counters(scene.folder).admitted, 1);
}

#[test]
fn a_record_with_a_broken_signature() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let mut broken: Record = codec::decode(&record, limits::RECORD).unwrap();
    let mut signature = broken.signed.signature.into_array();
    signature[0] ^= 1;
    broken.signed.signature = ByteArray::new(signature);
    let error = refused(&mut scene, codec::encode(&broken), |counters| counters.malformed);
    assert_eq!(error.as_deref(), Some("not a signed header: the signature does not verify"));
}

#[test]
fn a_record_in_the_name_of_another_device() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let mut forged: Record = codec::decode(&record, limits::RECORD).unwrap();
    forged.signed.key = scene.device(OTHER).into();
    let error = refused(&mut scene, codec::encode(&forged), |counters| counters.malformed);
    assert_eq!(error.as_deref(), Some("not a signed header: the signature does not verify"));
}

#[test]
fn a_record_with_another_body() {
    let mut scene = Scene::new();
    let mut record = scene.write_link("a");
    *record.last_mut().unwrap() ^= 1;
    let error = refused(&mut scene, record, |counters| counters.malformed);
    assert_eq!(error.as_deref(), Some("the body is not the one that was signed"));
}

#[test]
fn a_record_signed_as_something_else() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let mut other: Record = codec::decode(&record, limits::RECORD).unwrap();
    other.signed = attacker().sign(Kind::ControlOp, other.signed.body.to_vec());
    let error = refused(&mut scene, codec::encode(&other), |counters| counters.malformed);
    assert_eq!(error.as_deref(), Some("not a signed header: kind 5 is not expected"));
    other.signed.kind = Kind::RecordHeader as u8;
    let error = refused(&mut scene, codec::encode(&other), |counters| counters.malformed);
    assert_eq!(error.as_deref(), Some("not a signed header: the signature does not verify"));
}

#[test]
fn a_record_of_another_version() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    for version in [0, 2] {
        let mut other: Record = codec::decode(&record, limits::RECORD).unwrap();
        other.signed.version = version;
        let error = refused(&mut scene, codec::encode(&other), |counters| counters.malformed);
        assert_eq!(error, Some(format!("not a signed header: version {version} is not supported")));
    }
}

#[test]
fn a_record_for_another_object() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let mesh = scene.mesh;
    refused_in(&mut scene, mesh, record, |counters| counters.not_subscribed);
}

#[test]
fn a_record_sent_again() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    scene.send_record(scene.folder, record.clone());
    refused(&mut scene, record, |counters| counters.duplicate);
}

#[test]
fn two_records_at_one_place() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    scene.send_record(scene.folder, record.clone());
    let twin = resigned(&attacker(), &record, |header| header.more = true);
    scene.send_record(scene.folder, twin);
    let intake = scene.victim().intake(scene.folder).unwrap();
    assert_eq!((intake.counters().branch, intake.chains().branches().count()), (1, 2));
    let shown = |scene: &Scene| scene.victim().folder(scene.folder).unwrap().feed().iter().flatten().count();
    assert_eq!(shown(&scene), 1, "what was shown first goes on to stand, the other does not");
    assert_eq!(scene.victim().quarantined(scene.folder).count(), 1);
}

#[test]
fn a_record_after_another_than_its_predecessor() {
    let mut scene = Scene::new();
    let (first, second) = (scene.write_link("a"), scene.write_link("b"));
    scene.send_record(scene.folder, first);
    let wrong = resigned(&attacker(), &second, |header| header.prev = RecordId([9; 32]));
    refused(&mut scene, wrong, |counters| counters.sidestep);
}

#[test]
fn a_record_with_a_wrong_height() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let wrong = resigned(&attacker(), &record, |header| header.height += 1);
    refused(&mut scene, wrong, |counters| counters.bad_height);
}

#[test]
fn a_record_before_those_it_follows_waits() {
    let mut scene = Scene::new();
    let (first, second) = (scene.write_link("a"), scene.write_link("b"));
    refused(&mut scene, second, |counters| counters.gap);
    scene.send_record(scene.folder, first);
    assert_eq!(scene.counters(scene.folder).admitted, 2, "and comes in with the one it waited for");
}

#[test]
fn a_record_that_builds_on_what_there_is_not() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let wrong = resigned(&attacker(), &record, |header| {
        header.deps = vec![meshwork_protocol::object::Dep { chain: ChainId([9; 16]), seq: 1, id: RecordId([9; 32]) }]
    });
    refused(&mut scene, wrong, |counters| counters.missing_deps);
}

#[test]
fn records_that_wait_are_bounded() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let before = scene.state();
    for number in 0..limits::PENDING_RECORDS as u64 + 20 {
        let early = resigned(&attacker(), &record, |header| {
            (header.seq, header.height, header.prev) = (number + 2, number + 2, RecordId([9; 32]));
        });
        scene.send_record(scene.folder, early);
    }
    let pending = scene.victim().intake(scene.folder).unwrap().pending();
    assert_eq!((pending.len(), scene.counters(scene.folder).crowded_out), (limits::PENDING_RECORDS, 20));
    assert_eq!(scene.state(), before);
}

#[test]
fn a_record_that_names_statements_there_are_not() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let wrong = resigned(&attacker(), &record, |header| header.control = vec![OpId([9; 32])]);
    refused(&mut scene, wrong, |counters| counters.need_control);
}

#[test]
fn a_record_that_knew_less_than_what_it_builds_on() {
    let mut scene = Scene::new();
    let log = scene.victim().control.log(scene.folder).unwrap();
    let superseded = |id: OpId| log.entries().iter().any(|entry| log.precedes(id, entry.id()));
    let old = log.entries().iter().map(|entry| entry.id()).find(|id| superseded(*id));
    let old = old.expect("somebody has said two things");
    let (first, second) = (scene.write_link("a"), scene.write_link("b"));
    scene.send_record(scene.folder, first);
    let backwards = resigned(&attacker(), &second, |header| header.control = vec![old]);
    refused(&mut scene, backwards, |counters| counters.backwards_authority);
}

#[test]
fn a_record_by_the_grant_of_another_device() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let grants = scene.victim().control.grants(scene.folder, scene.device(OTHER)).unwrap();
    let wrong = resigned(&attacker(), &record, |header| (header.object_grant, header.device_grant) = grants);
    refused(&mut scene, wrong, |counters| counters.not_authorised);
}

#[test]
fn a_record_of_a_stranger_that_a_member_passes_on() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let foreign = resigned(&DeviceKey::from_bytes(&[66; 32]), &record, |_| ());
    refused(&mut scene, foreign, |counters| counters.not_authorised);
}

#[test]
fn a_record_of_a_device_that_may_only_read() {
    let mut scene = Scene::new();
    let helper = DeviceKey::from_bytes(&[55; 32]);
    let act = Act::Grant { to: helper.device_id().into(), role: Role::Read, seen: Vec::new() };
    let grant = scene.victim().control.sign(&scene.victim().device, scene.mesh, act).unwrap();
    let id = OpId(grant.id());
    let items = vec![ByteBuf::from(grant.to_bytes())];
    assert_eq!(scene.say(OTHER, &Frame::ControlItems { object: scene.mesh, items, done: false }), [""; 0]);
    let record = scene.write_link("a");
    let read_only = resigned(&helper, &record, |header| header.device_grant = id);
    refused(&mut scene, read_only, |counters| counters.not_authorised);
}

#[test]
fn a_record_that_a_removed_device_sends_itself() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    remove(&mut scene);
    refused(&mut scene, record, |counters| counters.not_subscribed);
}

/// The victim removes the attacker.
fn remove(scene: &mut Scene) {
    let target = scene.device(ATTACKER);
    let Scene { rng, nodes, .. } = scene;
    let out = nodes[VICTIM].replica.remove_device(rng, target, false).unwrap();
    let out = out.into_iter().filter(|output| !matches!(output, Output::Send { .. })).collect();
    scene.carry_out(VICTIM, out);
}

#[test]
fn a_back_dated_record_of_a_removed_device_that_another_passes_on() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    remove(&mut scene);
    let (before, count) = (scene.shown(), scene.counters(scene.folder));
    scene.say(OTHER, &Frame::Records { object: scene.folder, records: vec![ByteBuf::from(record)] });
    assert_eq!(scene.counters(scene.folder).after_cut, count.after_cut + 1);
    assert_eq!(scene.shown(), before);
    assert_eq!(scene.victim().quarantined(scene.folder).count(), 1, "it is in quarantine");
}

#[test]
fn a_body_that_declares_more_than_any_may_have() {
    let mut scene = Scene::new();
    let record = with_plain(&mut scene, &[0, 255, 255, 255, 255, 0, 0]);
    held_and_void(&mut scene, record, |counters| counters.bomb);
}

#[test]
fn a_body_packed_in_a_way_that_is_not_known() {
    let mut scene = Scene::new();
    let record = with_plain(&mut scene, &[1, 0, 0, 0, 1, 0]);
    held_and_void(&mut scene, record, |counters| counters.bad_cipher);
}

#[test]
fn a_body_that_the_key_of_its_epoch_does_not_open() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    // The header is part of what the body is encrypted for.
    let moved = resigned(&attacker(), &record, |header| header.more = true);
    held_and_void(&mut scene, moved, |counters| counters.bad_cipher);
}

#[test]
fn a_body_under_a_key_that_nobody_was_given() {
    let mut scene = Scene::new();
    let record = scene.write_link("a");
    let unknown = resigned(&attacker(), &record, |header| header.epoch = meshwork_protocol::id::EpochId([9; 16]));
    held_and_void(&mut scene, unknown, |counters| counters.no_key);
}

#[test]
fn a_batch_that_is_none() {
    for text in [&b""[..], b"\xff", &[0x83, 2, 0x80, 0x80], &link("a")[1..]] {
        let mut scene = Scene::new();
        let record = scene.write(scene.folder, RecordKind::Feed, text);
        held_and_void(&mut scene, record, |counters| counters.void);
    }
}

#[test]
fn a_name_that_leads_out_of_the_folder() {
    let text = link("a");
    for name in [&b"../x"[..], b"a/bc", b"ab\0c"] {
        let mut hostile = text.clone();
        let at = hostile.windows(4).position(|window| window == b"link").unwrap();
        hostile[at..at + 4].copy_from_slice(name);
        let mut scene = Scene::new();
        let record = scene.write(scene.folder, RecordKind::Feed, &hostile);
        held_and_void(&mut scene, record, |counters| counters.void);
    }
}

#[test]
fn a_record_of_a_kind_that_is_not_known() {
    let mut scene = Scene::new();
    let record = scene.write(scene.folder, RecordKind::Join, b"");
    let unknown = resigned(&attacker(), &record, |header| header.kind = 77);
    let before = scene.shown();
    scene.send_record(scene.folder, unknown);
    assert_eq!((scene.counters(scene.folder).admitted, scene.shown()), (1, before));
}
