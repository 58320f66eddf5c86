//! Persons and their devices in the log of an object.

use super::*;

#[test]
fn records_are_judged_by_the_grants_they_name() {
    let Shared { mut control, bob, object, admin, bobs_admin, bobs_device, .. } = shared();
    let invited = control.push_as(Signer::Device(1), object, None, None, admin, grant(person(bob), Role::Edit, &[]));
    let bobs = device(12).device_id();
    assert_eq!(control.grants(object, bobs), Some((invited, bobs_device)));
    assert_eq!(control.grants(object, device(1).device_id()), Some((OpId(object.0), admin)));
    let claim = |device: DeviceId, object_grant, device_grant| Claim {
        object,
        device,
        object_grant,
        device_grant,
        control: &[],
    };
    let by_bob = claim(bobs, invited, bobs_device);
    assert_eq!(control.judge(&by_bob), Ok(Judgement::default()));
    assert_eq!(control.judge(&claim(bobs, OpId(object.0), bobs_device)), Err(AuthorityError::NotAuthorised));
    assert_eq!(control.judge(&claim(bobs, invited, bobs_admin)), Err(AuthorityError::NotAuthorised));
    assert_eq!(control.judge(&claim(bobs, bobs_device, bobs_device)), Err(AuthorityError::NotAuthorised));
    let absent = OpId([9; 32]);
    let waiting = Claim { control: &[absent], ..by_bob };
    assert_eq!(control.judge(&waiting), Err(AuthorityError::NeedControl(absent)));

    let (old, new) = (RecordId([1; 32]), RecordId([2; 32]));
    let act = control.revocation(&mut rng(1), bobs, &[(object, vec![old])].into());
    let revoked = control.sign(&device(11), bob, act).unwrap();
    assert!(control.insert(revoked).is_ok());
    assert_eq!(control.role(object, bobs), None);
    assert_eq!(control.role(object, device(11).device_id()), Some(Role::Edit));
    let judged = control.judge(&by_bob).unwrap();
    assert_eq!(judged.cuts, [vec![old]]);
    assert!(judged.admits(|head| head == old));
    assert!(!judged.admits(|head| head == new));

    let removal = control.removal(&mut rng(2), object, MeshId(bob.0), &[old]);
    let removed = control.sign(&device(1), object, removal).unwrap();
    assert!(control.insert(removed).is_ok());
    assert_eq!(control.judge(&by_bob).unwrap().cuts.len(), 2);
    assert_eq!(control.role(object, device(11).device_id()), None);
}

#[test]
fn a_storage_helper_has_no_part_in_objects() {
    let Shared { mut control, alice, object, admin, .. } = shared();
    control.push(Signer::Device(1), alice, None, Some(admin), grant(holder(2), Role::Read, &[]));
    let helper = device(2).device_id();
    assert_eq!(control.role(alice, helper), Some(Role::Read));
    assert!(control.allowed_peer(MeshId(alice.0), helper));
    assert_eq!(control.role(object, helper), None);
    assert!(!control.allowed_peer(MeshId(alice.0), device(11).device_id()));
}

#[test]
fn a_removal_counts_before_the_objects_it_names_are_complete() {
    let Shared { mut control, alice, bob, object, admin, bobs_admin, bobs_device } = shared();
    let invited = control.push_as(Signer::Device(1), object, None, None, admin, grant(person(bob), Role::Own, &[]));
    let before = [alice, bob, object].map(|log| control.log(log).unwrap().missing(&[]));
    let carol = Holder([0xca; 32]);
    let act = grant(carol, Role::Edit, &[]);
    let kept = control.push_as(Signer::Device(12), object, None, Some(invited), bobs_device, act);
    let removal = control.write(
        Signer::Device(11),
        bob,
        Some(bobs_device),
        bobs_admin,
        NO_OP,
        revoke(holder(12), &[(object, kept)]),
    );
    let mut late = Control::new();
    for signed in before.into_iter().flatten() {
        assert!(late.adopt(signed).is_ok());
    }
    assert!(matches!(late.insert(removal.clone()), Ok(Inserted::Added(_))));
    assert_eq!(late.role(object, device(12).device_id()), None);
    assert!(!late.live(object).contains(&(carol, Role::Edit)));
    assert!(late.insert(control.get(kept).unwrap().clone()).is_ok());
    assert!(control.insert(removal).is_ok());
    assert!(late.live(object).contains(&(carol, Role::Edit)));
    assert_eq!(late.live(object), control.live(object));
}
