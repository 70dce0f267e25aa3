package statement

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// SummaryType is the predicate of a summary: https://slsa.dev/spec/v1.0/verification_summary.
const SummaryType = "https://slsa.dev/verification_summary/v1"

const (
	statement1 = "https://in-toto.io/Statement/v1"
	slsaOf     = "1.0" // version of SLSA that levels are of
	passed     = "PASSED"
	failed     = "FAILED"
)

// Summary is what a verifier found of something, for those who believe the verifier and do not look themselves.
type Summary struct {
	Verifier string // URI
	At       time.Time
	Resource string // URI of what was looked at
	Subjects []Subject
	Policy   Reference   // what was asked
	Inputs   []Reference // what it was held against
	Passed   bool
	Levels   []string // that were found, at least one when it passed; of one that did not pass there are none
}

// Subject is something that a statement is about.
type Subject struct {
	Name   string
	Digest [32]byte // SHA-256
}

// Reference names bytes.
type Reference struct {
	URI    string
	Digest [32]byte // SHA-256
}

type digestSet struct {
	SHA256 string `json:"sha256"`
}

type referenceJSON struct {
	URI    string    `json:"uri"`
	Digest digestSet `json:"digest"`
}

type summaryJSON struct {
	Kind    string `json:"_type"`
	Subject []struct {
		Name   string    `json:"name"`
		Digest digestSet `json:"digest"`
	} `json:"subject"`
	PredicateType string `json:"predicateType"`
	Predicate     struct {
		Verifier struct {
			ID string `json:"id"`
		} `json:"verifier"`
		At       time.Time       `json:"timeVerified"`
		Resource string          `json:"resourceUri"`
		Policy   referenceJSON   `json:"policy"`
		Inputs   []referenceJSON `json:"inputAttestations"`
		Result   string          `json:"verificationResult"`
		Levels   []string        `json:"verifiedLevels"`
		Version  string          `json:"slsaVersion"`
	} `json:"predicate"`
}

// Encode writes the statement, and gives it with its media type: it is for Seal.
func (s Summary) Encode() (kind string, payload []byte, err error) {
	if err := s.check(); err != nil {
		return "", nil, err
	}
	out := summaryJSON{Kind: statement1, PredicateType: SummaryType}
	for _, sub := range s.Subjects {
		out.Subject = append(out.Subject, struct {
			Name   string    `json:"name"`
			Digest digestSet `json:"digest"`
		}{sub.Name, digestSet{hex.EncodeToString(sub.Digest[:])}})
	}
	p := &out.Predicate
	p.Verifier.ID, p.At, p.Resource, p.Policy, p.Version = s.Verifier, s.At.UTC().Truncate(time.Second), s.Resource, s.Policy.json(), slsaOf
	for _, in := range s.Inputs {
		p.Inputs = append(p.Inputs, in.json())
	}
	p.Result, p.Levels = passed, s.Levels
	if !s.Passed {
		p.Result, p.Levels = failed, []string{failed} // as the format has it
	}
	payload, err = json.Marshal(out)
	return payloadType, payload, err
}

func (r Reference) json() referenceJSON {
	return referenceJSON{r.URI, digestSet{hex.EncodeToString(r.Digest[:])}}
}

// ReadSummary reads a summary that was kept where nothing else is written. It does not look at the signatures, which are for those whom the envelope is given to.
func ReadSummary(envelope []byte) (s Summary, err error) {
	if len(envelope) > MaxSize {
		return s, fmt.Errorf("%w: %d bytes, at most %d are read", ErrFormat, len(envelope), MaxSize)
	}
	var e Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return s, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var in summaryJSON
	if err := json.Unmarshal(e.Payload, &in); err != nil {
		return s, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	p := in.Predicate
	if e.PayloadType != payloadType || in.Kind != statement1 || in.PredicateType != SummaryType || p.Result != passed && p.Result != failed {
		return s, fmt.Errorf("%w: it is no summary of a verification", ErrFormat)
	}
	s = Summary{Verifier: p.Verifier.ID, At: p.At, Resource: p.Resource, Passed: p.Result == passed}
	if s.Passed {
		s.Levels = p.Levels
	}
	for _, sub := range in.Subject {
		d, err := sub.Digest.bytes()
		if err != nil {
			return Summary{}, err
		}
		s.Subjects = append(s.Subjects, Subject{sub.Name, d})
	}
	if s.Policy, err = p.Policy.read(); err != nil {
		return Summary{}, err
	}
	for _, r := range p.Inputs {
		ref, err := r.read()
		if err != nil {
			return Summary{}, err
		}
		s.Inputs = append(s.Inputs, ref)
	}
	return s, s.check()
}

func (d digestSet) bytes() (out [32]byte, err error) {
	sum, err := hex.DecodeString(d.SHA256)
	if err != nil || len(sum) != 32 {
		return out, fmt.Errorf("%w: something is not named by its SHA-256", ErrFormat)
	}
	return [32]byte(sum), nil
}

func (r referenceJSON) read() (Reference, error) {
	d, err := r.Digest.bytes()
	return Reference{r.URI, d}, err
}

func (s Summary) check() error {
	if s.Verifier == "" || s.Resource == "" || s.Policy.URI == "" || s.At.IsZero() || len(s.Subjects) == 0 || len(s.Subjects) > maxSubjects || s.Passed != (len(s.Levels) > 0) {
		return fmt.Errorf("%w: a summary without who looked, when, at what, what was asked or what was found", ErrFormat)
	}
	return nil
}
