package statement

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// The types of statements.
const (
	payloadType = "application/vnd.in-toto+json"
	slsa02      = "https://slsa.dev/provenance/v0.2"
	slsa1       = "https://slsa.dev/provenance/v1"
)

// Provenance is where something was built, from what.
type Provenance struct {
	Builder   string
	BuildType string
	Source    string     // URI of what the build began with
	Subjects  [][32]byte // SHA-256 of what came out
}

// ReadProvenance reads what a builder signed.
func ReadProvenance(s Signed) (p Provenance, err error) {
	if s.Type != payloadType {
		return p, fmt.Errorf("%w: its type is %.100q, and that of an in-toto statement %s", ErrFormat, s.Type, payloadType)
	}
	var st struct {
		Kind    string `json:"_type"`
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string          `json:"predicateType"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	if err := json.Unmarshal(s.Payload, &st); err != nil {
		return p, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if st.Kind != "https://in-toto.io/Statement/v1" && st.Kind != "https://in-toto.io/Statement/v0.1" {
		return p, fmt.Errorf("%w: %.100q is no in-toto statement", ErrFormat, st.Kind)
	}
	switch st.PredicateType {
	case slsa1:
		p, err = provenance1(st.Predicate)
	case slsa02:
		p, err = provenance02(st.Predicate)
	default:
		return p, fmt.Errorf("%w: it says %.100q, and not where something was built", ErrFormat, st.PredicateType)
	}
	if err != nil {
		return Provenance{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for _, sub := range st.Subject {
		sum, err := hex.DecodeString(sub.Digest["sha256"])
		if err != nil || len(sum) != 32 {
			return Provenance{}, fmt.Errorf("%w: a subject without its SHA-256", ErrFormat)
		}
		p.Subjects = append(p.Subjects, [32]byte(sum))
	}
	return p, p.check()
}

func (p Provenance) check() error {
	switch {
	case p.Builder == "" || len(p.Builder) > maxText || len(p.BuildType) > maxText:
		return fmt.Errorf("%w: it does not say who built it", ErrFormat)
	case p.Source == "" || len(p.Source) > maxText:
		return fmt.Errorf("%w: it does not say from what it was built", ErrFormat)
	case len(p.Subjects) == 0 || len(p.Subjects) > maxSubjects:
		return fmt.Errorf("%w: it is about %d things", ErrFormat, len(p.Subjects))
	}
	return nil
}

// provenance1 is SLSA 1: buildDefinition and runDetails.
func provenance1(data []byte) (p Provenance, err error) {
	var d struct {
		Definition struct {
			BuildType string `json:"buildType"`
			Resolved  []struct {
				URI string `json:"uri"`
			} `json:"resolvedDependencies"`
		} `json:"buildDefinition"`
		Run struct {
			Builder struct {
				ID string `json:"id"`
			} `json:"builder"`
		} `json:"runDetails"`
	}
	err = json.Unmarshal(data, &d)
	p.Builder, p.BuildType = d.Run.Builder.ID, d.Definition.BuildType
	if len(d.Definition.Resolved) > 0 { // the first is what the build began with; the others are what it fetched
		p.Source = d.Definition.Resolved[0].URI
	}
	return p, err
}

// provenance02 is SLSA 0.2: builder, buildType, invocation.
func provenance02(data []byte) (p Provenance, err error) {
	var d struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
		BuildType  string `json:"buildType"`
		Invocation struct {
			Source struct {
				URI string `json:"uri"`
			} `json:"configSource"`
		} `json:"invocation"`
	}
	err = json.Unmarshal(data, &d)
	p.Builder, p.BuildType = d.Builder.ID, d.BuildType
	if d.Invocation.Source.URI != "" {
		p.Source = d.Invocation.Source.URI
	}
	return p, err
}
