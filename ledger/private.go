package ledger

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"maps"
)

// A log is public, and nothing is ever taken out of it. What people write in their own words, and what names a person or a place, is
// therefore not in it: an entry commits to it by a salted hash of its ciphertext, and it is kept beside the log, encrypted under a key
// of its subject. When key, salt and ciphertext are destroyed the log verifies as before, and what was said is gone: the hash is of
// 32 random bytes and what looks like random bytes, so that nobody can guess his way back.

// private lists the members of each kind's JSON data that go into the private part. What is not listed is public for ever.
var private = map[Kind][]string{
	KindOrderInspected:      {"by", "notes"},
	KindKeyCreated:          {"reason"},
	KindKeyRetired:          {"reason"},
	KindAccessChanged:       {"email", "subject", "label"},
	KindProposalMade:        {"reason", "comment"},
	KindProposalApproved:    {"reason", "comment"},
	KindProposalRefused:     {"reason", "comment"},
	KindProposalTried:       {"reason", "comment"},
	KindCommandCancelled:    {"reason"},
	KindDeviceOnboarded:     {"reason"},
	KindDeviceState:         {"reason"},
	KindDeviceQuarantined:   {"reason"},
	KindDeviceReleased:      {"reason"},
	KindDeviceReplaced:      {"reason"},
	KindDeviceGrouped:       {"from", "to", "reason"},
	KindEnrolmentApproved:   {"reason"},
	KindEnrolmentRefused:    {"reason"},
	KindDeviceUpdated:       {"text"},
	KindDeviceRefused:       {"text"},
	KindDeviceUnhealthy:     {"text", "health"},
	KindDeviceHealthy:       {"health"},
	KindDeviceInconsistent:  {"sides"},
	KindDeviceReprovisioned: {"text"},
	KindVoucherIssued:       {"reason"},
	KindVoucherRevoked:      {"reason"},
	KindForeignEnded:        {"reason"},
	KindLegacyChanged:       {"gateway", "reason"},
	KindChipVendorEnded:     {"reason"},
	KindDeviceImported:      {"name"},
	KindFindingRaised:       {"text", "closed_reason"},
	KindFindingClosed:       {"text", "closed_reason"},
	KindRemedyDecided:       {"reason"},
	KindOrderCancelled:      {"reason"},
	KindOrderAbandoned:      {"reason"},
	KindSupplierChanged:     {"name", "names", "site", "reason"},
	KindPartChanged:         {"name", "number", "purl"},
	KindLotReceived:         {"reason"},
	KindLotCertified:        {"reason"},
	KindLotRecalled:         {"reason"},
	KindLotCleared:          {"reason"},
	KindOrderLotsTaken:      {"reason"},
	KindDeskRemoved:         {"reason"},
	KindRetireOrdered:       {"reason"},
	KindRetireWrittenOff:    {"reason"},
	KindReleaseWithdrawn:    {"reason"},
	KindReleaseClosed:       {"reason"},
	KindRolloutCreated:      {"reason", "selection", "canaries", "window"}, // groups say where devices are, and whose
	KindRolloutHalted:       {"reason"},
	KindRolloutPaused:       {"reason"},
	KindRolloutResumed:      {"reason"},
	KindRolloutShut:         {"reason"},
	KindRolloutPaced:        {"reason"},
	KindRolloutAborted:      {"reason"},

	KindOwnerCreated:      {"name"},
	KindOwnerEnded:        {"name"},
	KindDeviceClaimed:     {"owner", "salt", "key", "by"},
	KindDeviceTransferred: {"reason", "by"},
	KindTransferGivenUp:   {"reason", "by"},

	KindTelemetryReadDecided: {"purpose"},
}

// split takes what is private out of a fact's data. Data that is no JSON object stays as it is: signed envelopes are public.
func split(kind Kind, data []byte) (public, rest []byte) {
	members := private[kind]
	if len(members) == 0 {
		return data, nil
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(data, &all) != nil {
		return data, nil
	}
	said := map[string]json.RawMessage{}
	for _, m := range members {
		if v, ok := all[m]; ok && !bytes.Equal(v, []byte(`""`)) {
			said[m] = v
		}
		delete(all, m)
	}
	if len(said) == 0 {
		return join(all), nil
	}
	return join(all), join(said)
}

// Merge puts data and private part together again, for who may read both. Data that is no JSON object stays as it is.
func Merge(data, private []byte) []byte {
	var all, said map[string]json.RawMessage
	if len(private) == 0 || json.Unmarshal(private, &said) != nil || json.Unmarshal(data, &all) != nil || all == nil {
		return data
	}
	maps.Copy(all, said)
	return join(all)
}

func join(m map[string]json.RawMessage) []byte {
	b, err := json.Marshal(m)
	if err != nil { // its values were just read
		panic("ledger: " + err.Error())
	}
	return b
}

// Say gives a private part of its own, for facts whose data is a signed envelope; nil when there is nothing to say.
func Say(member, text string) []byte {
	if text == "" {
		return nil
	}
	b, err := json.Marshal(map[string]string{member: text})
	if err != nil { // a string
		panic("ledger: " + err.Error())
	}
	return b
}

// PrivateKeySize is the size of a subject's key: AES-256.
const PrivateKeySize = 32

// Sealed is a private part as it is kept beside the log.
type Sealed struct {
	Salt       []byte // 32 random bytes
	Ciphertext []byte // nonce ‖ AES-256-GCM, the fact's UID being authenticated with it
}

// ErrPrivate says that a private part does not open: another key, another fact, or damaged.
var ErrPrivate = errors.New("the private part does not open")

// Seal encrypts a fact's private part under its subject's key.
func Seal(key []byte, uid [16]byte, private []byte) (Sealed, error) {
	aead, err := privateAEAD(key)
	if err != nil {
		return Sealed{}, err
	}
	salt := make([]byte, sha256.Size)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	return Sealed{Salt: salt, Ciphertext: aead.Seal(nil, nil, private, uid[:])}, nil
}

// Commitment is what the entry holds of it.
func (s Sealed) Commitment() []byte {
	h := sha256.New()
	h.Write(s.Salt)
	h.Write(s.Ciphertext)
	return h.Sum(nil)
}

// Open decrypts it, if it is what the entry committed to.
func (s Sealed) Open(key []byte, uid [16]byte, commitment []byte) ([]byte, error) {
	if len(s.Salt) != sha256.Size || !bytes.Equal(s.Commitment(), commitment) {
		return nil, ErrPrivate
	}
	aead, err := privateAEAD(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, s.Ciphertext, uid[:])
	if err != nil {
		return nil, ErrPrivate
	}
	return plain, nil
}

func privateAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != PrivateKeySize {
		return nil, ErrPrivate
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
