//! Statements that are forged, replayed, back-dated, or go beyond a right.

use super::*;

fn attacker() -> DeviceKey {
    DeviceKey::from_bytes(&[2; 32])
}

/// The next statement of the attacker in the log of the mesh, whatever its rights.
fn next(scene: &Scene, act: Act) -> ControlOp {
    let control = &scene.nodes[ATTACKER].replica.control;
    let log = control.log(scene.mesh).unwrap();
    let own = log.entries().iter().filter(|entry| entry.author() == attacker().device_id().into());
    let (seq, prev) = own.map(|entry| (entry.op().seq, entry.id())).max().unwrap_or((0, NO_OP));
    let via = control.grants(scene.mesh, attacker().device_id()).unwrap().1;
    ControlOp { log: scene.mesh, seq: seq + 1, prev, via, dev: NO_OP, act }
}

fn sign(op: &ControlOp) -> Signed {
    attacker().sign(Kind::ControlOp, codec::encode(op))
}

fn say(scene: &mut Scene, signed: &Signed) -> Vec<String> {
    let items = vec![ByteBuf::from(signed.to_bytes())];
    scene.say(ATTACKER, &Frame::ControlItems { object: scene.mesh, items, done: false })
}

/// Sends a statement that must be refused with this error: nothing changes.
fn refused(scene: &mut Scene, signed: &Signed, error: &str) {
    let before = scene.state();
    assert_eq!(say(scene, signed), [error]);
    assert_eq!(scene.state(), before);
}

/// Sends a statement that is held and void: nobody gains or loses anything.
fn held_and_void(scene: &mut Scene, act: Act) {
    let (before, held) = (scene.shown(), scene.victim().control.log(scene.mesh).unwrap().len());
    let op = next(scene, act);
    assert_eq!(say(scene, &sign(&op)), [""; 0]);
    assert_eq!(scene.victim().control.log(scene.mesh).unwrap().len(), held + 1);
    assert_eq!(scene.shown(), before);
}

fn puppet() -> Act {
    Act::Grant { to: DeviceId([77; 32]).into(), role: Role::Edit, seen: Vec::new() }
}

#[test]
fn a_statement_with_a_broken_signature() {
    let mut scene = Scene::new();
    let mut signed = sign(&next(&scene, puppet()));
    let mut signature = signed.signature.into_array();
    signature[0] ^= 1;
    signed.signature = ByteArray::new(signature);
    refused(&mut scene, &signed, "the signature does not verify");
}

#[test]
fn a_statement_in_the_name_of_the_admin() {
    let mut scene = Scene::new();
    let mut signed = sign(&next(&scene, puppet()));
    signed.key = scene.device(VICTIM).into();
    refused(&mut scene, &signed, "the signature does not verify");
}

#[test]
fn a_statement_signed_as_something_else() {
    let mut scene = Scene::new();
    let op = next(&scene, puppet());
    let mut signed = attacker().sign(Kind::RecordHeader, codec::encode(&op));
    signed.kind = Kind::ControlOp as u8;
    refused(&mut scene, &signed, "the signature does not verify");
}

#[test]
fn a_statement_of_another_version() {
    let mut scene = Scene::new();
    for version in [0, 2] {
        let mut signed = sign(&next(&scene, puppet()));
        signed.version = version;
        refused(&mut scene, &signed, &format!("version {version} is not supported"));
    }
}

#[test]
fn a_statement_by_the_grant_of_the_admin() {
    let mut scene = Scene::new();
    let mut op = next(&scene, puppet());
    op.via = scene.victim().control.grants(scene.mesh, scene.device(VICTIM)).unwrap().1;
    refused(&mut scene, &sign(&op), "the grant relied on is not the author's");
}

#[test]
fn a_statement_at_the_apex() {
    let mut scene = Scene::new();
    let mut op = next(&scene, puppet());
    op.via = OpId(scene.mesh.0);
    refused(&mut scene, &sign(&op), "the grant relied on is not the author's");
}

#[test]
fn a_statement_that_skips_a_place() {
    let mut scene = Scene::new();
    let mut op = next(&scene, puppet());
    op.seq += 1;
    refused(&mut scene, &sign(&op), "the operation does not continue its chain");
}

#[test]
fn a_statement_sent_again() {
    let mut scene = Scene::new();
    let all = scene.victim().control.log(scene.mesh).unwrap().missing(&[]);
    let before = scene.state();
    for signed in all {
        assert_eq!(say(&mut scene, &signed), [""; 0]);
    }
    assert_eq!(scene.state(), before);
}

#[test]
fn two_statements_at_one_place_are_held_and_neither_gives_a_right() {
    let mut scene = Scene::new();
    held_and_void(&mut scene, puppet());
    held_and_void(&mut scene, Act::Grant { to: DeviceId([78; 32]).into(), role: Role::Own, seen: Vec::new() });
}

#[test]
fn a_device_that_is_no_admin_lets_nobody_in() {
    held_and_void(&mut Scene::new(), puppet());
}

#[test]
fn a_device_that_is_no_admin_does_not_make_itself_one() {
    let own = attacker().device_id().into();
    held_and_void(&mut Scene::new(), Act::Grant { to: own, role: Role::Own, seen: Vec::new() });
}

#[test]
fn a_device_that_is_no_admin_removes_nobody() {
    let mut scene = Scene::new();
    let to = scene.device(OTHER).into();
    held_and_void(&mut scene, Act::Revoke { to, nonce: ByteArray::new([1; 32]), cuts: Vec::new() });
}

#[test]
fn an_admin_does_not_remove_the_one_that_made_it_one() {
    let mut scene = Scene::new();
    let target = scene.device(ATTACKER);
    let out = scene.nodes[VICTIM].replica.promote_device(target).unwrap();
    scene.carry_out(VICTIM, out);
    let to = scene.device(VICTIM).into();
    held_and_void(&mut scene, Act::Revoke { to, nonce: ByteArray::new([1; 32]), cuts: Vec::new() });
}

#[test]
fn a_puppet_let_in_after_the_removal_is_no_member() {
    let mut scene = Scene::new();
    let target = scene.device(ATTACKER);
    let out = scene.nodes[VICTIM].replica.promote_device(target).unwrap();
    scene.carry_out(VICTIM, out);
    let op = next(&scene, puppet());
    let Scene { rng, nodes, .. } = &mut scene;
    let out = nodes[VICTIM].replica.remove_device(rng, target, false).unwrap();
    scene.carry_out(VICTIM, out.into_iter().filter(|output| !matches!(output, Output::Send { .. })).collect());
    let before = scene.shown();
    let items = vec![ByteBuf::from(sign(&op).to_bytes())];
    scene.say(OTHER, &Frame::ControlItems { object: scene.mesh, items, done: false });
    assert!(scene.victim().control.contains(OpId(sign(&op).id())), "it is held");
    assert_eq!(scene.shown(), before);
}

#[test]
fn statements_that_wait_are_bounded() {
    let mut scene = Scene::new();
    let mut op = next(&scene, puppet());
    let before = scene.state();
    for number in 0..limits::PENDING_PER_LOG as u64 + 20 {
        (op.seq, op.prev) = (number + 2, OpId([9; 32]));
        assert_eq!(say(&mut scene, &sign(&op)), [""; 0]);
    }
    assert_eq!(scene.victim().control.waiting(), limits::PENDING_PER_LOG);
    assert_eq!(scene.state(), before);
}

#[test]
fn a_foreign_mesh_is_not_taken_in() {
    let mut scene = Scene::new();
    let key = DeviceKey::from_bytes(&[66; 32]);
    let seal = SealKey::from_bytes(&[67; 32]);
    let (_, items) = create_mesh(&mut scene.rng, &RootKey::from_seed(&[8; 64], 0), &key, &seal).unwrap();
    refused(&mut scene, &items[0], "the mesh is not known here");
}

#[test]
fn rubbish_sealed_to_a_device_is_sealed_to_it_once_more_by_another() {
    let mut scene = Scene::new();
    let (folder, shut_out) = (scene.folder, scene.device(OTHER));
    let Scene { rng, nodes, .. } = &mut scene;
    let attacker = &mut nodes[ATTACKER].replica;
    let mut act = attacker.control.mint_epoch(rng, folder, &attacker.keyring).unwrap();
    let Act::Epoch { id, seals, .. } = &mut act else { panic!("an epoch") };
    let id = *id;
    let rubbish = seals.iter_mut().find(|sealed| sealed.device == shut_out).unwrap();
    rubbish.sealed = ByteArray::new([0x5a; _]);
    attacker.author_act(folder, act).unwrap();
    scene.input(ATTACKER, Input::Tick);
    scene.settle();
    let generation = |scene: &Scene| {
        let readers = scene.nodes[OTHER].replica.control.readers(scene.mesh);
        readers.iter().find(|reader| reader.device == shut_out).map(|reader| reader.generation)
    };
    assert_eq!(generation(&scene), Some(2), "it has complained once");
    let opens = |scene: &Scene, node: usize| scene.nodes[node].replica.keyring.key(folder, id).is_some();
    assert!((0..3).all(|node| opens(&scene, node)), "all of them can read what is written under it");
}

/// The alarms that a statement raises at the victim: whether it says that its signer has signed twice in one place, and
/// whether that somebody signs in the name of the victim.
fn alarms(scene: &mut Scene, signed: &Signed) -> (bool, bool) {
    let items = vec![ByteBuf::from(signed.to_bytes())];
    let frame = Frame::ControlItems { object: scene.mesh, items, done: false };
    let events = scene.input(VICTIM, Input::Frame { peer: scene.device(ATTACKER), bytes: frame.encode() });
    let forked = |event: &Event| matches!(event, Event::ChainForked { device, .. } if *device == signed.device_id());
    (events.iter().any(forked), events.iter().any(|event| matches!(event, Event::CopyNoticed(_))))
}

#[test]
fn two_statements_at_one_place_and_one_in_our_name_raise_the_alarm() {
    let mut scene = Scene::new();
    let twins = [77, 78].map(|number| Act::Grant { to: DeviceId([number; 32]).into(), role: Role::Edit, seen: vec![] });
    let twins = twins.map(|act| sign(&next(&scene, act)));
    assert_eq!(twins.map(|twin| alarms(&mut scene, &twin)), [(false, false), (true, false)]);

    let control = &scene.victim().control;
    let copy = control.sign(&DeviceKey::from_bytes(&[1; 32]), scene.mesh, puppet()).unwrap();
    assert_eq!(alarms(&mut scene, &copy), (false, true));
    assert_eq!(alarms(&mut scene, &copy), (false, false), "once is enough");
}
