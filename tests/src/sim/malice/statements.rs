//! Statements that go beyond its rights, and two where there may be one.

use meshwork_protocol::{
    codec,
    control::{Act, ControlOp, NO_OP, Role},
    id::{DeviceId, Incarnation, ObjectId, OpId},
    key::{DeviceKey, Kind, Signed},
    limits,
    object::RecordKind,
    wire::sync::Frame,
};
use serde_bytes::{ByteArray, ByteBuf};

use super::{Deed, Malice, Scene, deed, records::sent};
use crate::sim::fate::Fate;

impl Malice {
    /// Two statements at one place: one for the victim, the other for whomever it meets next.
    pub(super) fn twin_statements(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let log = if scene.removed && fate.once_in(2) { self.mesh } else { self.folder };
        let one = self.some_act(fate, log)?;
        let other = self.some_act(fate, log)?;
        let (one, other) = (self.sign_act(log, one)?, self.sign_act(log, other)?);
        let _ = self.control.adopt(one.clone());
        self.kept.push(statement("malice: twin statement", log, &other));
        Some(vec![statement("malice: statement with a twin", log, &one)])
    }

    fn some_act(&mut self, fate: &mut Fate, log: ObjectId) -> Option<Act> {
        if log == self.mesh {
            return Some(Act::Grant { to: DeviceId(fate.bytes()).into(), role: Role::Own, seen: Vec::new() });
        }
        self.control.mint_epoch(&mut fate.0, log, &self.keyring).ok()
    }

    /// Removes one of those that it has no right to remove.
    pub(super) fn revoke(&mut self, fate: &mut Fate, scene: &Scene) -> Option<Vec<Deed>> {
        let to = (*scene.honest.get(fate.index(scene.honest.len()))?).into();
        let act = Act::Revoke { to, nonce: ByteArray::new(fate.bytes()), cuts: Vec::new() };
        let signed = self.sign_act(self.mesh, act)?;
        let _ = self.control.adopt(signed.clone());
        Some(vec![statement("malice: junior revokes a senior", self.mesh, &signed)])
    }

    /// Lets in a device of its own making, after it was removed, and writes in its name.
    pub(super) fn puppet(&mut self, fate: &mut Fate) -> Option<Vec<Deed>> {
        let puppet = DeviceKey::from_bytes(&fate.bytes());
        let act = Act::Grant { to: puppet.device_id().into(), role: Role::Edit, seen: Vec::new() };
        let signed = self.sign_act(self.mesh, act)?;
        let _ = self.control.adopt(signed.clone());
        let mut deeds = vec![statement("malice: grant after its removal", self.mesh, &signed)];
        if let Some(draft) = self.draft_by(&puppet, Incarnation([7; 8]), self.folder, RecordKind::Feed, 0) {
            let text = self.link_text(fate)?;
            let record = self.sign(fate, &puppet, draft, &text)?;
            deeds.push(sent("malice: record of a puppet", &record));
        }
        Some(deeds)
    }

    /// More statements than may wait, all for one that never comes.
    pub(super) fn flood_statements(&mut self, fate: &mut Fate) -> Option<Deed> {
        let mut op = self.next_op(self.mesh, Act::Leave {})?;
        let mut items = Vec::new();
        for seq in 2..limits::PENDING_PER_LOG as u64 + 50 {
            (op.seq, op.prev) = (seq, OpId(fate.bytes()));
            items.push(ByteBuf::from(self.key.sign(Kind::ControlOp, codec::encode(&op)).to_bytes()));
        }
        Some(deed("malice: flood of statements", &Frame::ControlItems { object: self.mesh, items, done: false }))
    }

    /// Signs an act after its newest statement, whatever its rights.
    fn sign_act(&self, log: ObjectId, act: Act) -> Option<Signed> {
        let op = self.next_op(log, act)?;
        Some(self.key.sign(Kind::ControlOp, codec::encode(&op)))
    }

    fn next_op(&self, log: ObjectId, act: Act) -> Option<ControlOp> {
        let member = self.control.member(log, self.key.device_id())?;
        let held = self.control.log(log)?;
        let own = held.entries().iter().filter(|entry| entry.author() == self.key.device_id().into());
        let newest = own.max_by_key(|entry| (entry.op().seq, entry.id()));
        let (seq, prev) = newest.map_or((0, NO_OP), |entry| (entry.op().seq, entry.id()));
        let (via, dev) =
            if held.is_mesh() { (member.device_grant, NO_OP) } else { (member.object_grant, member.device_grant) };
        Some(ControlOp { log, seq: seq + 1, prev, via, dev, act })
    }
}

fn statement(name: &'static str, object: ObjectId, signed: &Signed) -> Deed {
    deed(name, &Frame::ControlItems { object, items: vec![signed.to_bytes().into()], done: false })
}
