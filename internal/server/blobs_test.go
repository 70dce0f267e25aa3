package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/blob/s3"
	"github.com/hallmark-iot/hallmark/internal/blob/s3/s3test"
	"github.com/hallmark-iot/hallmark/internal/client"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/server"
)

// What is uploaded goes to the bucket that config.json names, and no directory of the node's has it.
func TestArtifactsInABucket(t *testing.T) {
	bucket, query := s3test.Start(t)
	l := initialise(t)
	at := bucket + "/acme" + query
	edit(t, l, `"virtual_ok": true`, fmt.Sprintf(`"virtual_ok": true, "artifacts": %q`, at))
	api, _ := start(t, l)
	token, err := os.ReadFile(l.AdminToken())
	if err != nil {
		t.Fatal(err)
	}
	program := []byte("program 1.0.0")
	secret, err := client.New(api, strings.TrimSpace(string(token)), nil).Token(t.Context(), httpapi.TokenSpec{Caller: "machine:ci", Kind: access.Machine, Roles: []access.Role{access.ReleaseManager}, Use: signin.UseToken, Seconds: 3600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.New(api, secret, nil).Upload(t.Context(), "pump", "app", false, bytes.NewReader(program)); err != nil {
		t.Fatal(err)
	}
	b, err := s3.Open(at)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	name := hex.EncodeToString(sum[:])
	if got, err := b.Get(t.Context(), name[:2]+"/"+name[2:]); err != nil || !bytes.Equal(got, program) {
		t.Errorf("the bucket has %q, %v", got, err)
	}
	if got, err := b.Get(t.Context(), name[:2]+"/"+name[2:]+".sums"); err != nil || !bytes.Equal(got, sum[:]) { // of its one chunk
		t.Errorf("the sums are %x, %v", got, err)
	}
	if kept, err := filepath.Glob(filepath.Join(l.Blobs(), "??", "*")); err != nil || len(kept) > 0 {
		t.Errorf("%v is here, %v", kept, err)
	}
}

func TestWhereArtifactsAreIsABucketOrNothing(t *testing.T) {
	l := initialise(t)
	edit(t, l, `"virtual_ok": true`, `"virtual_ok": true, "artifacts": "/srv/blobs"`)
	if _, err := server.LoadConfig(l); err == nil || !strings.Contains(err.Error(), "artifacts: address of a bucket") {
		t.Errorf("%v", err)
	}
}
