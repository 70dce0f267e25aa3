"""Opens an encrypted image as MCUboot does, by nothing of ours: open.py KEY.pem IMAGE CLEAR."""
import struct, sys
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
b = bytearray(open(sys.argv[2], "rb").read())
_, _, header, protected, size, flags = struct.unpack("<IIHHII", b[:20])
n = {4: 16, 8: 32}[flags & 12]


def ctr(k, data):
    c = Cipher(algorithms.AES(k), modes.CTR(bytes(16))).encryptor()
    return c.update(data) + c.finalize()


at = header + size + protected
magic, total = struct.unpack("<HH", b[at : at + 4])
assert magic == 0x6907 and at + total == len(b)
at, end, kind, point = at + 4, at + total, *((0x32, 65) if isinstance(key, ec.EllipticCurvePrivateKey) else (0x33, 32))
while at < end:
    typ, length = struct.unpack("<HH", b[at : at + 4])
    if typ == kind:
        value = bytes(b[at + 4 : at + 4 + length])
    at += 4 + length
if kind == 0x32:
    secret = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), value[:65]))
else:
    secret = key.exchange(x25519.X25519PublicKey.from_public_bytes(value[:32]))
derived = HKDF(hashes.SHA256(), n + 32, None, b"MCUBoot_ECIES_v1").derive(secret)
mac = hmac.HMAC(derived[n:], hashes.SHA256())
mac.update(value[point + 32 :])
mac.verify(value[point : point + 32])
b[header : header + size] = ctr(ctr(derived[:n], value[point + 32 :]), bytes(b[header : header + size]))
open(sys.argv[3], "wb").write(b)
