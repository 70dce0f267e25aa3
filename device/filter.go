package device

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hallmark-iot/hallmark/fault"
)

// Filter says which devices of many, by what is known of them; empty fields do not select. Lists are asked for by it, queries that somebody keeps have it, and
// rollouts go by it.
type Filter struct {
	State     string `json:"state,omitempty" maxLength:"32"`
	Verdict   string `json:"verdict,omitempty" maxLength:"32"`   // EAR status, or unknown
	Version   string `json:"version,omitempty" maxLength:"128"`  // running
	Assurance string `json:"assurance,omitempty" maxLength:"16"` // what their word is worth
	Release   string `json:"release,omitempty" maxLength:"64"`   // running: digest, hex
	Bundle    string `json:"bundle,omitempty" maxLength:"20"`    // version of its trust bundle
	Prefix    string `json:"prefix,omitempty" maxLength:"64"`    // how the ID begins
	Findings  bool   `json:"findings,omitempty"`                 // only those with open findings
}

// Verdicts are the words for what a device's evidence says of it: the statuses of draft-ietf-rats-ear-03 §3.2, and unknown for none that counts.
func Verdicts() []string { return []string{"affirming", "warning", "contraindicated", "unknown"} }

// Check refuses words that no device has: they would find nothing, and that would read as good news.
func (f Filter) Check() error {
	if f.State != "" && !Known(State(f.State)) {
		return fault.New(fault.Invalid, "query.state", fmt.Sprintf("no state is called %.32q", f.State), fmt.Sprint("use one of ", States()))
	}
	if f.Verdict != "" && !slices.Contains(Verdicts(), f.Verdict) {
		return fault.New(fault.Invalid, "query.verdict", fmt.Sprintf("no verdict is called %.32q", f.Verdict), fmt.Sprint("use one of ", Verdicts()))
	}
	if f.Assurance != "" && !Assurance(f.Assurance).Valid() {
		return fault.New(fault.Invalid, "query.assurance", fmt.Sprintf("no assurance is called %.16q", f.Assurance), fmt.Sprint("use one of ", Assurances()))
	}
	for _, word := range []string{f.Version, f.Prefix} {
		if !utf8.ValidString(word) || strings.ContainsFunc(word, unicode.IsControl) {
			return fault.New(fault.Invalid, "query.text", fmt.Sprintf("%.128q is no version, and no ID begins with it", word), "leave out what cannot be printed")
		}
	}
	if _, err := f.Digest(); err != nil {
		return err
	}
	_, err := f.BundleVersion()
	return err
}

// Digest is that of the release they run; nil: whatever they run.
func (f Filter) Digest() ([]byte, error) {
	if f.Release == "" {
		return nil, nil
	}
	digest, err := hex.DecodeString(f.Release)
	if err != nil || len(digest) != sha256.Size {
		return nil, fault.New(fault.Invalid, "query.release", "a release is named by its digest, 64 digits of hex", "take it from `hallmark release list`")
	}
	return digest, nil
}

// BundleVersion is that of the trust bundle they believe; negative: whichever.
func (f Filter) BundleVersion() (int64, error) {
	if f.Bundle == "" {
		return -1, nil
	}
	version, err := strconv.ParseInt(f.Bundle, 10, 64)
	if err != nil || version < 0 {
		return -1, fault.New(fault.Invalid, "query.bundle", "a trust bundle is named by its version, a number", "see `hallmark bundle status`")
	}
	return version, nil
}

// Covers reports whether whoever is in o is in f.
func (f Filter) Covers(o Filter) bool {
	all := func(f, o string) bool { return f == "" || f == o }
	return all(f.State, o.State) && all(f.Verdict, o.Verdict) && all(f.Version, o.Version) && all(f.Assurance, o.Assurance) && all(f.Release, o.Release) &&
		all(f.Bundle, o.Bundle) && strings.HasPrefix(o.Prefix, f.Prefix) && (o.Findings || !f.Findings)
}

// Text says it as people do: devices, and what of them.
func (f Filter) Text() string {
	var parts []string
	say := func(format, value string) {
		if value != "" {
			parts = append(parts, fmt.Sprintf(format, value))
		}
	}
	say("are %s", f.State)
	say("run %s", f.Version)
	say("run release %s", f.Release[:min(len(f.Release), 12)])
	say("have %s evidence", cmp.Or(map[string]string{"unknown": "no current"}[f.Verdict], f.Verdict))
	say("%s what they run", map[Assurance]string{Enforces: "enforce", Proves: "prove", Says: "only say"}[Assurance(f.Assurance)])
	say("believe trust bundle %s", f.Bundle)
	say("have IDs that begin with %s", f.Prefix)
	if f.Findings {
		parts = append(parts, "have open findings")
	}
	if len(parts) == 0 {
		return "all devices"
	}
	return "devices that " + strings.Join(parts, ", ")
}
