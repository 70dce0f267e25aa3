package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"github.com/hallmark-iot/hallmark/internal/durable"
	"github.com/hallmark-iot/hallmark/internal/witnesscall"
	"github.com/hallmark-iot/hallmark/ledger"
	"github.com/hallmark-iot/hallmark/ledger/witness"
)

// WitnessConfig is one witness in config.json: a name alone is run in this process, with a key of that name; one elsewhere has the
// prefix of its address and its verifier keys, which name it.
type WitnessConfig struct {
	Name string
	URL  string
	Keys []ledger.VerifierKey
}

// farWitness is the form of one elsewhere.
type farWitness struct {
	URL  string               `json:"url"`
	Keys []ledger.VerifierKey `json:"keys"`
}

// MarshalJSON implements json.Marshaler.
func (w WitnessConfig) MarshalJSON() ([]byte, error) {
	if w.URL == "" {
		return json.Marshal(w.Name)
	}
	return json.Marshal(farWitness{URL: w.URL, Keys: w.Keys})
}

// UnmarshalJSON implements json.Unmarshaler. Unknown members are refused.
func (w *WitnessConfig) UnmarshalJSON(data []byte) error {
	*w = WitnessConfig{}
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &w.Name)
	}
	var far farWitness
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&far); err != nil {
		return fmt.Errorf("witnesses: %w; want a name, or {\"url\": …, \"keys\": […]}", err)
	}
	if far.URL == "" || len(far.Keys) == 0 {
		return errors.New(`witnesses: one elsewhere needs its "url" and its verifier "keys"`)
	}
	*w = WitnessConfig{Name: far.Keys[0].Name, URL: far.URL, Keys: far.Keys}
	return nil
}

// localName is what a key's file may be called, so that no witness has the key or the memory of something else.
var localName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// checkWitnesses says what is wrong with the witnesses. The quorum is of those that devices can verify, and of different keys.
func (c Config) checkWitnesses() error {
	names, keys, countable := map[string]bool{}, map[string]bool{}, 0
	for _, w := range c.Witnesses {
		if w.URL == "" && !localName.MatchString(w.Name) {
			return fmt.Errorf("witness %q: want a name of lower-case letters, digits and '-'", w.Name)
		}
		if w.URL != "" {
			if _, err := witnesscall.New(w.URL, w.Keys); err != nil {
				return err
			}
		}
		name := c.nameOf(w)
		if names[name] {
			return fmt.Errorf("witness %s is there twice", name)
		}
		names[name] = true
		if w.URL == "" {
			countable++
		}
		for _, k := range w.Keys {
			if keys[string(k.Key)] {
				return fmt.Errorf("witness %s: its key is another witness's too", name)
			}
			keys[string(k.Key)] = true
			if k.Type == ledger.TypeCosignature {
				countable++
			}
		}
	}
	if c.Quorum < 1 || c.Quorum > countable {
		return fmt.Errorf("quorum %d of %d witnesses with an Ed25519 key: it must be at least 1, and at most that", c.Quorum, countable)
	}
	return nil
}

// nameOf is a witness's name in cosignatures.
func (c Config) nameOf(w WitnessConfig) string {
	if w.URL == "" {
		return c.Instance + "/" + w.Name
	}
	return w.Name
}

// localWitnesses are the names of the keys of the witnesses in this process.
func (c Config) localWitnesses() (out []string) {
	for _, w := range c.Witnesses {
		if w.URL == "" {
			out = append(out, w.Name)
		}
	}
	return out
}

// openWitnesses opens the witnesses of the logs, those in this process and those elsewhere.
func openWitnesses(ctx context.Context, l Layout, cfg Config, keys Signers, known []trustedLog, signers map[ledger.Log]logSigners) (out []ledger.Cosigner, err error) {
	for _, c := range cfg.Witnesses {
		var w ledger.Cosigner
		if c.URL == "" {
			w, err = openLocalWitness(ctx, l, cfg, keys, c, known, signers)
		} else {
			w, err = witnesscall.New(c.URL, c.Keys)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, nil
}

func openLocalWitness(ctx context.Context, l Layout, cfg Config, keys Signers, w WitnessConfig, known []trustedLog, signers map[ledger.Log]logSigners) (*witness.Witness, error) {
	s, err := newEdSigner(keys, w.Name)
	if err != nil {
		return nil, err
	}
	c := witness.Config{Keys: []ledger.CosignerKey{ledger.Ed25519Cosigner(cfg.nameOf(w), s)}}
	for _, log := range known {
		c.Logs = append(c.Logs, witness.Log{
			Origin: log.Origin, Keys: signers[ledger.Log(log.Name)].verifierKeys(log.Origin), Memory: durable.File{Path: l.Witness(w.Name, log.Name)},
		})
	}
	return witness.Open(ctx, c)
}
