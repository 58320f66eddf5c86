//! What is taken into a log, what waits, what is refused.

use super::*;

#[test]
fn statements_round_trip_and_any_flipped_bit_is_refused() {
    let (mesh, statements) =
        create_mesh(&mut rng(1), &root(100), &device(1), &crate::seal::SealKey::generate(&mut rng(2))).unwrap();
    for signed in &statements {
        assert_eq!(Signed::parse(&signed.to_bytes()).as_ref(), Ok(signed));
    }
    let mut control = Control::new();
    let (last, before) = statements.split_last().unwrap();
    for signed in before {
        assert!(matches!(control.adopt(signed.clone()), Ok(Inserted::Added(_))));
    }
    let bytes = last.to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let inserted = Signed::parse(&flipped).map_err(ControlError::from).and_then(|signed| control.insert(signed));
        assert!(inserted.is_err(), "bit {bit}");
    }
    assert!(matches!(control.insert(last.clone()), Ok(Inserted::Added(_))));
    assert_eq!(control.insert(last.clone()), Ok(Inserted::Duplicate));
    assert_eq!(control.role(mesh.into(), device(1).device_id()), Some(Role::Own));
}

fn one_of_each() -> [ControlOp; 8] {
    let id = OpId([1; 32]);
    let seal = SealedKey { device: device(1).device_id(), generation: 3, sealed: ByteArray::new([4; 112]) };
    let acts = [
        grant(holder(1), Role::Invite, &[id]),
        revoke(holder(1), &[(ObjectId([2; 32]), id)]),
        Act::Leave {},
        Act::Rotate { root: root(1).public() },
        Act::Epoch {
            id: crate::id::EpochId([5; 16]),
            n: 7,
            parents: vec![Parent { epoch: id, wrapped: ByteArray::new([6; 72]) }],
            seals: vec![seal.clone()],
        },
        Act::Seal { epoch: id, seals: vec![seal] },
        Act::Keys { seal: crate::seal::SealPublic([8; 32]), generation: 1 },
        Act::Away { device: device(2).device_id() },
    ];
    acts.map(|act| ControlOp { log: ObjectId([9; 32]), seq: 1, prev: NO_OP, via: id, dev: NO_OP, act })
}

#[test]
fn every_act_round_trips() {
    for op in one_of_each() {
        let bytes = codec::encode(&op);
        assert_eq!(codec::decode::<ControlOp>(&bytes[..bytes.len() - 1], limits::CONTROL_BODY).ok(), None);
        assert_eq!(codec::decode(&bytes, limits::CONTROL_BODY), Ok(op));
    }
}

#[test]
fn any_flipped_bit_of_any_act_is_refused() {
    for op in one_of_each() {
        let bytes = device(1).sign(Kind::ControlOp, codec::encode(&op)).to_bytes();
        assert!(Signed::parse(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Signed::parse(&flipped).is_err(), "{:?}, bit {bit}", op.act);
        }
    }
}

#[test]
fn an_operation_waits_for_all_that_it_names() {
    let (mut control, mesh, admin) = one_admin();
    let second = control.push(Signer::Device(1), mesh, None, Some(admin), grant(holder(2), Role::Own, &[]));
    let third = control.push(Signer::Device(2), mesh, None, Some(second), grant(holder(3), Role::Edit, &[]));
    let statements = control.log(mesh).unwrap().missing(&[]);
    let mut other = Control::new();
    for signed in statements.iter().rev() {
        let refused = other.insert(signed.clone());
        assert!(refused.is_err(), "without the genesis nothing waits");
    }
    let _ = other.adopt(statements[0].clone()).unwrap();
    assert_eq!(other.insert(statements[3].clone()), Ok(Inserted::Waiting(second)));
    assert_eq!(other.insert(statements[3].clone()), Ok(Inserted::Duplicate));
    assert_eq!(other.insert(statements[2].clone()), Ok(Inserted::Waiting(admin)));
    assert!(other.live(mesh).is_empty());
    assert_eq!(other.insert(statements[1].clone()), Ok(Inserted::Added(vec![admin, second, third])));
    assert_eq!(other.waiting(), 0);
    assert_eq!(other.live(mesh), control.live(mesh));
}

#[test]
fn waiting_operations_are_bounded() {
    let (mut control, mesh, admin) = one_admin();
    let absent = OpId([77; 32]);
    for number in 0..2 * limits::PENDING_PER_LOG {
        let mut act = revoke(holder(2), &[]);
        if let Act::Revoke { nonce, .. } = &mut act {
            nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
        }
        let op = ControlOp { log: mesh, seq: 2, prev: absent, via: admin, dev: NO_OP, act };
        let signed = device(1).sign(Kind::ControlOp, codec::encode(&op));
        assert_eq!(control.insert(signed), Ok(Inserted::Waiting(absent)));
    }
    assert_eq!(control.waiting(), limits::PENDING_PER_LOG);
}

#[test]
fn sync_sends_what_the_other_lacks_in_causal_order() {
    let (mut control, mesh, admin) = one_admin();
    let mut other = Control::new();
    for signed in control.log(mesh).unwrap().missing(&[]) {
        let _ = other.adopt(signed).unwrap();
    }
    let second = control.push(Signer::Device(1), mesh, None, Some(admin), grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(1), mesh, Some(second), Some(admin), grant(holder(3), Role::Edit, &[]));
    control.push(Signer::Device(2), mesh, None, Some(second), grant(holder(4), Role::Edit, &[]));
    let heads = other.log(mesh).unwrap().heads();
    assert_eq!(heads, [admin]);
    let missing = control.log(mesh).unwrap().missing(&heads);
    assert_eq!(missing.len(), 3);
    for signed in missing {
        assert!(matches!(other.insert(signed), Ok(Inserted::Added(ids)) if ids.len() == 1));
    }
    assert_eq!(other.log(mesh).unwrap().heads(), control.log(mesh).unwrap().heads());
    assert_eq!(control.log(mesh).unwrap().missing(&other.log(mesh).unwrap().heads()), []);
    assert_eq!(other.live(mesh), control.live(mesh));
}

#[test]
fn malformed_operations_are_refused() {
    let (mut control, mesh, admin) = one_admin();
    let note = Act::Keys { seal: crate::seal::SealPublic([1; 32]), generation: 1 };
    let mut refused = |by: Signer, seq, prev, via, dev, act| {
        let op = ControlOp { log: mesh, seq, prev, via, dev, act };
        control.insert(by.sign(Kind::ControlOp, codec::encode(&op))).unwrap_err()
    };
    let (one, apex) = (Signer::Device(1), OpId(mesh.0));
    assert_eq!(refused(one, 2, NO_OP, admin, NO_OP, note.clone()), ControlError::BadLink);
    assert_eq!(refused(one, 2, admin, admin, NO_OP, note.clone()), ControlError::BadLink);
    assert_eq!(refused(one, 1, NO_OP, apex, NO_OP, note.clone()), ControlError::BadVia);
    assert_eq!(refused(Signer::Device(2), 1, NO_OP, admin, NO_OP, note.clone()), ControlError::BadVia);
    assert_eq!(refused(one, 1, NO_OP, admin, admin, note.clone()), ControlError::BadDevice);
    let rotate = Act::Rotate { root: root(1).public() };
    assert_eq!(refused(one, 1, NO_OP, admin, NO_OP, rotate), ControlError::BadAct);
    assert_eq!(refused(Signer::Root(100), 2, admin, apex, NO_OP, Act::Leave {}), ControlError::BadAct);
    let heals_a_grant = grant(holder(2), Role::Edit, &[admin]);
    assert_eq!(refused(one, 1, NO_OP, admin, NO_OP, heals_a_grant), ControlError::BadAct);
    let epoch = Act::Epoch { id: crate::id::EpochId([1; 16]), n: u32::MAX, parents: vec![], seals: vec![] };
    assert_eq!(refused(one, 1, NO_OP, admin, NO_OP, epoch), ControlError::BadAct);
    let twice = Act::Grant { to: holder(2), role: Role::Edit, seen: vec![admin, admin] };
    assert_eq!(refused(one, 1, NO_OP, admin, NO_OP, twice), ControlError::Malformed);
}

#[test]
fn operations_of_unknown_logs_are_refused() {
    let (mut control, _, admin) = one_admin();
    let note = Act::Leave {};
    let unknown = ObjectId([3; 32]);
    let op = ControlOp { log: unknown, seq: 1, prev: NO_OP, via: admin, dev: NO_OP, act: note };
    let signed = device(1).sign(Kind::ControlOp, codec::encode(&op));
    assert_eq!(control.insert(signed), Err(ControlError::UnknownLog(unknown)));
}

#[test]
fn chains_and_delegation_end() {
    let (mut control, mesh, admin) = one_admin();
    let mut prev = None;
    let note = |generation| Act::Keys { seal: crate::seal::SealPublic([1; 32]), generation };
    for generation in 0..limits::CHAIN_OPERATIONS {
        prev = Some(control.push(Signer::Device(1), mesh, prev, Some(admin), note(generation)));
    }
    let signed = control.write(Signer::Device(1), mesh, prev, admin, NO_OP, note(0));
    assert_eq!(control.insert(signed), Err(ControlError::ChainFull));
    let epoch = Act::Epoch { id: crate::id::EpochId([1; 16]), n: 1, parents: vec![], seals: vec![] };
    control.push(Signer::Device(1), mesh, prev, Some(admin), epoch);

    let (mut control, mesh, mut via) = one_admin();
    for depth in 1..limits::GRANT_DEPTH as u8 {
        let next = grant(holder(depth + 1), Role::Own, &[]);
        via = control.push(Signer::Device(depth), mesh, None, Some(via), next);
    }
    let deepest = limits::GRANT_DEPTH as u8;
    let signed = control.write(Signer::Device(deepest), mesh, None, via, NO_OP, grant(holder(99), Role::Own, &[]));
    assert_eq!(control.insert(signed), Err(ControlError::BadAct));
    assert_eq!(control.live(mesh).len(), limits::GRANT_DEPTH);
}

#[test]
fn geneses_come_by_right_only() {
    let (mut control, mesh, admin) = one_admin();
    let stranger = root(101).sign(
        Kind::Genesis,
        codec::encode(&Genesis { root: root(101).public(), convergence: ByteArray::new([0; 32]), recovery: vec![] }),
    );
    assert_eq!(control.insert(stranger.clone()), Err(ControlError::Unasked));
    let object = ObjectGenesis { owner: MeshId(mesh.0), kind: 1, convergence: ByteArray::new([0; 32]) };
    let forged = device(9).sign(Kind::ObjectGenesis, codec::encode(&object));
    assert_eq!(control.insert(forged), Err(ControlError::NotEntitled));
    let nobodys = ObjectGenesis { owner: MeshId([7; 32]), ..object };
    let nobodys = device(1).sign(Kind::ObjectGenesis, codec::encode(&nobodys));
    assert_eq!(control.insert(nobodys), Err(ControlError::UnknownLog(ObjectId([7; 32]))));

    let object = control.new_object(mesh, 1);
    let guest = MeshId(stranger.id());
    control.push_as(Signer::Device(1), object, None, None, admin, grant(guest.into(), Role::Edit, &[]));
    assert!(matches!(control.insert(stranger), Ok(Inserted::Added(_))));
    assert_eq!(control.meshes(object), [guest, MeshId(mesh.0)].into());
    assert_eq!(control.persons(object), [(MeshId(mesh.0), Role::Own), (guest, Role::Edit)]);
}

#[test]
fn signing_follows_the_authors_chain_and_rights() {
    let (mut control, mesh, _) = one_admin();
    let add = |number| grant(holder(number), Role::Edit, &[]);
    for number in [2, 3] {
        let signed = control.sign(&device(1), mesh, add(number)).unwrap();
        assert!(matches!(control.insert(signed), Ok(Inserted::Added(_))));
    }
    assert_eq!(control.live(mesh).len(), 3);
    assert_eq!(control.sign(&device(2), mesh, add(4)), Err(AuthorError::NotPermitted));
    assert_eq!(control.sign(&device(5), mesh, add(4)), Err(AuthorError::NotMember));
    let rotate = Act::Rotate { root: root(102).public() };
    let signed = control.sign_root(&root(100), MeshId(mesh.0), rotate).unwrap();
    assert!(control.insert(signed).is_ok());
    assert_eq!(control.sign_root(&root(100), MeshId(mesh.0), add(6)), Err(AuthorError::NotRoot));
    let signed = control.sign_root(&root(102), MeshId(mesh.0), add(6)).unwrap();
    assert!(control.insert(signed).is_ok());
    assert_eq!(control.role(mesh, device(6).device_id()), Some(Role::Edit));
}

#[test]
fn an_object_outlives_its_creator() {
    let (mut control, mesh, admin) = one_admin();
    let two = control.push(Signer::Device(1), mesh, None, Some(admin), grant(holder(2), Role::Own, &[]));
    control.push(Signer::Device(2), mesh, None, Some(two), grant(holder(3), Role::Edit, &[]));
    let object = control.new_object(mesh, 3);
    control.push(Signer::Device(1), mesh, Some(two), Some(admin), revoke(holder(2), &[]));
    assert_eq!(control.role(object, device(3).device_id()), None);
    let mut late = Control::new();
    for log in [mesh, object] {
        for signed in control.log(log).unwrap().missing(&[]) {
            assert!(matches!(late.adopt(signed), Ok(Inserted::Added(_))));
        }
    }
    assert_eq!(late.role(object, device(1).device_id()), Some(Role::Own));
}

#[test]
fn of_two_branches_of_a_chain_neither_precedes_the_other() {
    let (mut control, mesh, one) = one_admin();
    let by = Signer::Device(1);
    let first = control.push(by, mesh, None, Some(one), grant(holder(2), Role::Edit, &[]));
    let long = control.push(by, mesh, Some(first), Some(one), grant(holder(3), Role::Edit, &[]));
    let longer = control.push(by, mesh, Some(long), Some(one), grant(holder(4), Role::Edit, &[]));
    let short = control.push(by, mesh, Some(first), Some(one), grant(holder(5), Role::Edit, &[]));
    let log = control.log(mesh).unwrap();
    assert!(log.precedes(first, longer) && log.precedes(long, longer) && log.precedes(first, short));
    assert!(!log.precedes(short, longer) && !log.precedes(longer, short) && !log.precedes(long, short));
    assert!(!log.precedes(first, first) && !log.precedes(longer, first));
    assert!(!log.precedes(one, first), "another author's");
}
