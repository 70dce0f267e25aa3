package attest

import "encoding/json"

// Tier is an entry of the trust vector or a status (draft-ietf-rats-ear-03 §3.2): 0 nothing known, 2 affirming, 32 warning, 96
// contraindicated; −1 the verifier failed. Cryptography that fails (99) is a refusal here, and no tier.
type Tier int8

// The tiers.
const (
	Malfunction     Tier = -1
	None            Tier = 0
	Affirming       Tier = 2
	Warning         Tier = 32
	Contraindicated Tier = 96
)

func (t Tier) String() string {
	switch {
	case t == Affirming:
		return "affirming"
	case t == Warning:
		return "warning"
	case t >= Contraindicated:
		return "contraindicated"
	}
	return "none"
}

// MarshalJSON writes the number: names are for people.
func (t Tier) MarshalJSON() ([]byte, error) { return json.Marshal(int8(t)) }

// Vector is the trust vector.
type Vector struct {
	InstanceIdentity Tier `cbor:"0,keyasint" json:"instance-identity"`
	Configuration    Tier `cbor:"1,keyasint" json:"configuration"`
	Executables      Tier `cbor:"2,keyasint" json:"executables"`
	FileSystem       Tier `cbor:"3,keyasint" json:"file-system"`
	Hardware         Tier `cbor:"4,keyasint" json:"hardware"`
	RuntimeOpaque    Tier `cbor:"5,keyasint" json:"runtime-opaque"`
	StorageOpaque    Tier `cbor:"6,keyasint" json:"storage-opaque"`
	SourcedData      Tier `cbor:"7,keyasint" json:"sourced-data"`
}

// Status is the worst of the entries something is claimed for. A claim this verifier must judge (identity, executables, hardware,
// storage, configuration) and could not leaves None: unknown is not good.
func (v Vector) Status() Tier {
	worst := Affirming
	for _, t := range []Tier{v.InstanceIdentity, v.Configuration, v.Executables, v.Hardware, v.StorageOpaque} {
		if t == None || t == Malfunction {
			if worst < Contraindicated {
				worst = None
			}
			continue
		}
		if worst == None && t < Contraindicated {
			continue
		}
		worst = max(worst, t)
	}
	for _, t := range []Tier{v.FileSystem, v.RuntimeOpaque, v.SourcedData} {
		if t > worst && (worst != None || t >= Contraindicated) {
			worst = t
		}
	}
	if worst > Contraindicated {
		return Contraindicated
	}
	return worst
}

// Profile is the EAR version these results are written in.
const Profile = "tag:ietf.org,2026:rats/ear#03"

// EAR is an attestation result (draft-ietf-rats-ear-03 §3).
type EAR struct {
	Profile  string            `cbor:"265,keyasint" json:"eat_profile"`
	IssuedAt int64             `cbor:"6,keyasint" json:"iat"`
	Verifier Verifier          `cbor:"1004,keyasint" json:"ear_verifier-id"`
	Nonce    []byte            `cbor:"10,keyasint,omitempty" json:"eat_nonce,omitempty"`
	Submods  map[string]Submod `cbor:"266,keyasint" json:"submods"`
}

// Verifier says who appraised.
type Verifier struct {
	Developer string `cbor:"0,keyasint" json:"developer"`
	Build     string `cbor:"1,keyasint" json:"build"`
}

// Submod is the result for one attester.
type Submod struct {
	Status   Tier     `cbor:"1000,keyasint" json:"ear_status"`
	Vector   Vector   `cbor:"1001,keyasint" json:"ear_trustworthiness-vector"`
	Policies []string `cbor:"1003,keyasint,omitempty" json:"ear_appraisal-policy-ids,omitempty"`
}
