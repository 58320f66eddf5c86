#!/usr/bin/env python3
"""Verifies the vectors out of docs/protocol.md, without any code of Meshwork.

    python3 -m venv target/venv && target/venv/bin/pip install blake3 PyNaCl
    target/venv/bin/python tests/wire/verify.py
"""

import hashlib
import json
import pathlib
import re
import struct
import sys

import nacl.bindings
import nacl.exceptions
import nacl.signing
from blake3 import blake3

KINDS = {1: 512, 5: 131_072, 6: 2_048, 8: 1_024, 11: 128}
GRANT, REVOKE, LEAVE, ROTATE = 0, 1, 2, 3
READ, EDIT, INVITE, OWN = 1, 2, 3, 4
DEVICE, PERSON, MEMBER = 0, 1, 2
RELAY, CIRCUIT, MAILBOX, SERVICES, SERVICE, TOPIC, PUBLISH, SUBSCRIBE = range(8)
PEERS, DEPTH = 3, 4
INCLUDES = {RELAY: (CIRCUIT, MAILBOX), SERVICES: (SERVICE,), TOPIC: (PUBLISH, SUBSCRIBE)}
SKEW, MONTH = 600_000_000, 30 * 86_400_000_000
NONE = bytes(32)


class Wrong(Exception):
    pass


def need(holds, what):
    if not holds:
        raise Wrong(what)


# Encoding: arrays, unsigned integers, booleans, byte strings, text, in shortest form.


def head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    for code, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")):
        if value < 1 << 8 * struct.calcsize(form):
            return bytes([major << 5 | code]) + struct.pack(form, value)
    raise Wrong("an integer that is too large")


def encode(value):
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(map(encode, value))


def decode(data):
    value, rest = decode_some(data)
    need(not rest, "bytes after the value")
    need(encode(value) == data, "not in the one form")
    return value


def decode_some(data):
    need(data, "no bytes left")
    first, rest = data[0], data[1:]
    if first in (0xF4, 0xF5):
        return first == 0xF5, rest
    major, value = first >> 5, first & 31
    if value >= 24:
        need(value < 28, "a length without end")
        size = 1 << value - 24
        value, rest = int.from_bytes(rest[:size], "big"), rest[size:]
    if major == 0:
        return value, rest
    if major in (2, 3):
        need(len(rest) >= value, "a string that ends early")
        return (rest[:value] if major == 2 else rest[:value].decode()), rest[value:]
    need(major == 4, "a type that is not allowed")
    items = []
    for _ in range(value):
        item, rest = decode_some(rest)
        items.append(item)
    return items, rest


# Signed statements.


class Signed:
    def __init__(self, data):
        version, self.kind, self.body, self.key, self.signature = decode(data) if isinstance(data, bytes) else data
        need(version == 1 and self.kind in KINDS, "an unknown version or kind")
        need(len(self.body) <= KINDS[self.kind], "a body that is too large")
        text = b"mesh.v1.sig\0" + bytes([self.kind]) + struct.pack(">I", len(self.body)) + self.body
        try:
            nacl.signing.VerifyKey(self.key).verify(text, self.signature)
        except nacl.exceptions.BadSignatureError:
            raise Wrong("a signature that is not the signer's") from None
        self.id = blake3(b"mesh.v1.id\0" + bytes([self.kind]) + self.key + self.body).digest()
        self.fields = decode(self.body)


def derive_key(context, material):
    return blake3(material, derive_key_context=context).digest()


def root_key(phrase, index):
    seed = hashlib.pbkdf2_hmac("sha512", phrase.encode(), b"mnemonic", 2048)
    secret = derive_key("mesh 2026 root v1", seed + struct.pack(">I", index))
    return bytes(nacl.signing.SigningKey(secret).verify_key)


# Control logs: enough of the evaluation for a chain of grants without conflict.


def check_operation(held, signed):
    log, _, prev, via, dev, _ = signed.fields
    seq = signed.fields[1]
    before = held.get(prev)
    need((prev == NONE) == (seq == 1), "a first operation that follows another")
    need(prev == NONE or (before.key == signed.key and before.fields[1] + 1 == seq), "a chain with a gap")
    need(via in held, "a grant that is not held")
    in_mesh = held[log].kind == 1
    need((dev == NONE) == in_mesh, "a device grant where none belongs, or none where one does")
    if not in_mesh:
        need(held[dev].fields[5][:2] == [GRANT, signed.key], "a device grant of somebody else")


def grants_to(held, device, grant):
    """The grants from the apex to a device, each checked to be one that its author could give."""
    chain = []
    while held[grant].kind == 5 and held[grant].fields[5][0] == GRANT:
        signed = held[grant]
        tag, holder, role, _ = signed.fields[5]
        need(tag == GRANT and holder == device, "a grant of somebody else")
        chain.append((role, signed))
        device, grant = signed.key, signed.fields[3]
    genesis = held[grant]
    need(genesis.kind == 1 and genesis.fields[0] == device, "a chain that does not begin at the root")
    roles = [OWN] + [role for role, _ in reversed(chain)]
    need(all(above == OWN or (above == INVITE and below <= EDIT) for above, below in zip(roles, roles[1:])), "escalation")
    return [signed for _, signed in reversed(chain)]


def check_record(held, vectors):
    head_of, body = decode(bytes.fromhex(vectors["record"]["hex"]))
    signed = Signed(head_of)
    need(signed.kind == 6, "a header of another kind")
    fields = signed.fields
    (obj, _, incarnation, seq, prev, control, object_grant, device_grant, epoch, deps, height, _, digest, length) = fields
    need(blake3(body).digest() == digest and len(body) == length, "a body of another record")
    named = [tuple(dep) for dep in deps]
    need((prev == NONE) == (seq == 1) and height >= seq and named == sorted(set(named)), "a header that nobody writes")
    need(control == sorted(set(control)) and 1 <= len(control) <= 8, "control heads out of order")
    chain = grants_to(held, signed.key, device_grant)
    need(chain[-1].fields[5][2] >= EDIT, "a device that may not write")
    need(object_grant == obj and held[obj].fields[0] == chain[0].fields[0], "an object of another mesh")
    # Removed since: the record stands because the revocation names it.
    for revocation in (s for s in held.values() if s.kind == 5 and s.fields[5][0] == REVOKE and s.fields[5][1] == signed.key):
        _, _, nonce, cuts = revocation.fields[5]
        row = blake3(obj, key=nonce).digest()
        named = [records for cut_row, _, records in cuts if cut_row == row]
        need(named and signed.id in named[0], "a record past its author's cut")
    secret = bytes.fromhex(vectors["record"]["epoch_secret"])
    need(blake3(b"mesh.v1.epoch" + obj + secret).digest()[:16] == epoch, "a secret of another epoch")
    convergence = bytes.fromhex(vectors["convergence"])
    need(held[obj].fields[2] == derive_key("mesh 2026 convergence v1", convergence), "chunk ids of another secret")
    bare = fields[:12] + [bytes(32), 0]
    text = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
        body[24:], signed.key + encode(bare), body[:24], derive_key("mesh 2026 record v1", secret)
    )
    need(text[0] == 0 and struct.unpack(">I", text[1:5])[0] == len(text) - 5, "a text in a wrong frame")
    need(text[5:].decode() == vectors["record"]["text"], "another text")
    name = blake3(b"mesh.v1.chain" + signed.key + obj + incarnation).digest()[:16]
    return signed, len(chain), name


# Capabilities. Roles are those of a log without conflict: a device has what it was granted, unless it left or was removed.


class Refused(Exception):
    pass


def permit(holds, what):
    if not holds:
        raise Refused(what)


def role(held, log, device):
    """The role of a device in a mesh, or in an object of its mesh (vectors have no other persons)."""
    if held[log].kind == 11:
        return OWN if role(held, held[log].fields[0], device) >= EDIT else 0
    ops = [s for s in held.values() if s.kind == 5 and s.fields[0] == log]
    gone = any(s.fields[5][:2] == [REVOKE, device] or (s.fields[5][0] == LEAVE and s.key == device) for s in ops)
    grants = [s for s in ops if s.fields[5][:2] == [GRANT, device]]
    for grant in grants:
        grants_to(held, device, grant.id)
    return 0 if gone else max((s.fields[5][2] for s in grants), default=0)


def check_form(link):
    parent, lease, audience, right, caveats, not_before, expires = link.fields
    need(link.kind == 8 and len(parent) == 32 and len(lease) == 16, "another statement")
    need(len(audience) == {DEVICE: 2, PERSON: 2, MEMBER: 3}[audience[0]], "an unknown audience")
    need(all(len(field) == 32 for field in audience[1:] + right[1:2]), "an id of another length")
    named = right[0] in (SERVICE, TOPIC, PUBLISH, SUBSCRIBE)
    need(right[0] <= SUBSCRIBE and len(right) == 2 + named, "an unknown right")
    need(not named or re.fullmatch(r"[a-z0-9._-]{1,64}", right[2]), "a name of another form")
    need((audience[0] == DEVICE) == (right[0] <= MAILBOX), "a right that is not for such an audience")
    tags = [tag for tag, _ in caveats]
    need(tags == sorted(set(tags)) and all(tag <= DEPTH for tag in tags), "caveats out of order, or unknown")
    for tag, value in caveats:
        if tag == PEERS:
            need(1 <= len(value) <= 16 and value == sorted(set(value)) and all(len(one) == 32 for one in value), "peers")
        else:
            need(isinstance(value, int), "a caveat without a number")
    need(not_before < expires <= not_before + MONTH, "a time that cannot be")


def includes(right, other):
    if other[0] in INCLUDES.get(right[0], ()):
        return right[1:] == (other[1:2] if right[0] == SERVICES else other[1:])
    return right == other


def check_part(whole, part):
    need(includes(whole[3], part[3]), "another right than that of which it is a part")
    need(whole[5] <= part[5] and part[6] <= whole[6], "more time than that of which it is a part")
    caveats = dict(part[4])
    for tag, value in whole[4]:
        need(tag in caveats, "a caveat left out")
        less = caveats[tag]
        need(set(less) <= set(value) if tag == PEERS else less < value if tag == DEPTH else less <= value, "a laxer caveat")


def read_chain(data):
    need(len(data) <= 5_768, "a chain that is too large")
    links = [Signed(signed) for signed in decode(data)]
    need(len(links) <= 5, "a chain that is too long")
    for before, link in zip([None, *links], links):
        check_form(link)
        need(link.fields[0] == (before.id if before else NONE), "a link that does not follow")
        if before:
            check_part(before.fields, link.fields)
    return links


class Relay:
    """Judges by the key of its operator."""

    def __init__(self, relay, operator):
        self.relay, self.operator = relay, operator

    def may_give(self, key, right):
        return right[0] <= MAILBOX and right[1] == self.relay and key == self.operator

    may_use = may_give

    def was_given(self, audience, device):
        return audience == [DEVICE, device]


class Device:
    """Judges by the control logs."""

    def __init__(self, held, mesh):
        self.held, self.mesh = held, mesh

    def needed(self, right):
        return READ if right[0] == SUBSCRIBE and self.held[right[1]].kind == 11 else EDIT

    def may_give(self, key, right):
        if right[0] in (SERVICES, SERVICE):
            return all(role(self.held, self.mesh, device) >= EDIT for device in (key, right[1]))
        if right[0] in (TOPIC, PUBLISH, SUBSCRIBE):
            has = role(self.held, right[1], key)
            return has == OWN or (has == INVITE and self.needed(right) <= EDIT)
        return False

    def may_use(self, device, right):
        if right[0] in (TOPIC, PUBLISH, SUBSCRIBE):
            return role(self.held, right[1], device) >= self.needed(right)
        return self.may_give(device, right)

    def was_given(self, audience, device):
        if audience[0] == DEVICE:
            return audience[1] == device
        mesh = self.held.get(audience[1])
        of_mesh = mesh is not None and mesh.kind == 1 and role(self.held, mesh.id, device) >= EDIT
        return of_mesh and audience[2:] in ([], [device])


def judge(verifier, links, case):
    by, right = bytes.fromhex(case["by"]), decode(bytes.fromhex(case["right"]))
    if not links:
        return permit(verifier.may_use(by, right), "not entitled")
    permit(verifier.may_give(links[0].key, links[0].fields[3]), "not entitled")
    for before, link in zip(links, links[1:]):
        permit(verifier.was_given(before.fields[2], link.key), "not the holder")
    permit(verifier.was_given(links[-1].fields[2], by), "not given")
    for _, _, _, given, caveats, not_before, expires in (link.fields for link in links):
        permit(case["now"] + SKEW >= not_before, "not yet")
        permit(case["now"] < expires + SKEW, "expired")
        permit(includes(given, right), "other right")
        peer = case["peer"] and bytes.fromhex(case["peer"])
        permit(all(tag != PEERS or peer in value for tag, value in caveats), "other peer")


def check_capabilities(held, vectors):
    told = vectors["capabilities"]
    relay = Relay(bytes.fromhex(told["relay"]), bytes.fromhex(told["operator"]))
    device = Device(held, bytes.fromhex(vectors["mesh"]))
    outcomes = {}
    for verifier, case in [(relay, case) for case in told["at_relay"]] + [(device, case) for case in told["in_mesh"]]:
        links = read_chain(bytes.fromhex(case["chain"]))
        outcome = "permitted"
        try:
            judge(verifier, links, case)
        except Refused as refused:
            outcome = str(refused)
        need((outcome == "permitted") == case["permitted"], f"{case['name']}: {outcome}")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def refuses_every_flipped_bit(data, read=Signed):
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            read(bytes(flipped))
        except Exception:  # noqa: BLE001: whatever the reason is
            continue
        raise Wrong(f"bit {place} can be flipped")
    return len(data) * 8


def main():
    vectors = json.loads(pathlib.Path(__file__).with_name("vectors.json").read_text())
    held, acts, bits = {}, set(), 0
    for statement in vectors["statements"]:
        data = bytes.fromhex(statement["hex"])
        signed = Signed(data)
        if signed.kind == 5:
            check_operation(held, signed)
            acts.add(signed.fields[5][0])
        held[signed.id] = signed
        if len(data) < 400:
            bits += refuses_every_flipped_bit(data)
    mesh = bytes.fromhex(vectors["mesh"])
    need(held[mesh].fields[0] == root_key(vectors["phrase"], 0) == held[mesh].key, "a root of another phrase")
    rotation = next(s for s in held.values() if s.kind == 5 and s.fields[5][0] == ROTATE)
    need(rotation.fields[5][1] == root_key(vectors["phrase"], 1), "a successor of another phrase")
    record, depth, chain = check_record(held, vectors)
    outcomes = check_capabilities(held, vectors)
    bits += refuses_every_flipped_bit(bytes.fromhex(vectors["capabilities"]["at_relay"][0]["chain"]), read_chain)
    print(f"{len(held)} statements, acts {sorted(acts)}; {bits} flipped bits refused")
    print(f"record {record.id.hex()[:8]} of chain {chain.hex()[:8]} stands by {depth} grants")
    print("capabilities: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        sys.exit(f"wrong: {wrong}")
