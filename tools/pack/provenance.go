package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"
)

const payloadType = "application/vnd.in-toto+json"

// statement is an in-toto Statement v1 with SLSA provenance v1 (slsa.dev/spec/v1.0/provenance).
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     predicate  `json:"predicate"`
}

type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

type predicate struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		InternalParameters   map[string]string `json:"internalParameters"`
		ResolvedDependencies []resource        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// provenance states what files were built, from which commit and how; with a key, signed, in a DSSE envelope beside it: .json becomes
// .intoto.jsonl. When and where it was built is left out: who builds the same commit gets the same statement, and can say so.
func (b build) provenance(files []string) error {
	s := statement{Type: "https://in-toto.io/Statement/v1", PredicateType: "https://slsa.dev/provenance/v1"}
	slices.Sort(files)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		s.Subject = append(s.Subject, resource{Name: filepath.Base(f), Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}})
	}
	d := &s.Predicate.BuildDefinition
	d.BuildType = b.source + "/blob/main/scripts/package.sh"
	d.ExternalParameters = map[string]string{"source": "git+" + b.source, "commit": b.commit, "version": b.version}
	d.InternalParameters = map[string]string{"go": runtime.Version()}
	d.ResolvedDependencies = []resource{{URI: "git+" + b.source + "@" + b.commit, Digest: map[string]string{"gitCommit": b.commit}}}
	s.Predicate.RunDetails.Builder.ID = b.source + "/blob/main/.ci/run"
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(b.out, append(data, '\n'), 0o644); err != nil || b.key == "" {
		return err
	}
	envelope, err := signed(b.key, data)
	if err != nil {
		return fmt.Errorf("%s: %w", b.key, err)
	}
	return os.WriteFile(strings.TrimSuffix(b.out, ".json")+".intoto.jsonl", append(envelope, '\n'), 0o644)
}

// signed is a payload in a DSSE envelope, signed with the key in a PEM file.
func signed(keyFile string, payload []byte) ([]byte, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := signerverifier.LoadKey(data)
	if err != nil {
		return nil, err
	}
	var signer dsse.SignerVerifier
	switch key.KeyType {
	case signerverifier.ECDSAKeyType:
		signer, err = signerverifier.NewECDSASignerVerifierFromSSLibKey(key)
	case signerverifier.ED25519KeyType:
		signer, err = signerverifier.NewED25519SignerVerifierFromSSLibKey(key)
	case signerverifier.RSAKeyType:
		signer, err = signerverifier.NewRSAPSSSignerVerifierFromSSLibKey(key)
	default:
		err = fmt.Errorf("a key of type %q signs nothing here", key.KeyType)
	}
	if err != nil {
		return nil, err
	}
	es, err := dsse.NewEnvelopeSigner(signer)
	if err != nil {
		return nil, err
	}
	e, err := es.SignPayload(context.Background(), payloadType, payload)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}
