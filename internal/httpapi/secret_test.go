package httpapi_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// A secret that two people have made is shown once, to who asked for it, and is in no file of the server: not with the answer that is kept
// for a key of the caller's either.
func TestASecretMadeByTwoIsKeptNowhere(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("ann", []access.Role{access.Admin})
	path := w.propose("root", http.MethodPost, "/api/v1/tokens", newOperator("otto"))
	status, data, _ := w.call("ann", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, nil)
	w.is(status, data, http.StatusOK, "")

	key := map[string]string{"Idempotency-Key": "k1"}
	status, data, _ = w.call("root", http.MethodPost, path+"/run", nil, key)
	var made httpapi.TokenReply
	if err := json.Unmarshal(data, &made); err != nil || status != http.StatusOK || made.Secret == "" {
		t.Fatalf("run: %d %s", status, data)
	}
	status, data, _ = w.call("root", http.MethodPost, path+"/run", nil, key)
	w.is(status, data, http.StatusConflict, "idempotency.answer-lost")
	w.stop()
	err := filepath.WalkDir(w.layout.Dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(name)
		if bytes.Contains(content, []byte(made.Secret)) {
			t.Errorf("%s has the secret", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What two people did is done once with the proposal's own key; a caller's key beside it gives the same answer again.
func TestAProposalIsCarriedOutOnceWhateverKeyComesWithIt(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("ann", []access.Role{access.Admin})
	w.issue("eve", []access.Role{access.Viewer})
	promote := w.propose("root", http.MethodPut, "/api/v1/members/person:eve/roles", httpapi.RolesRequest{Roles: []access.Role{access.Operator}})
	status, data, _ := w.call("ann", http.MethodPost, promote+"/approve", httpapi.DecisionRequest{}, nil)
	w.is(status, data, http.StatusOK, "")
	first, data, _ := w.call("root", http.MethodPost, promote+"/run", nil, map[string]string{"Idempotency-Key": "k1"})
	w.is(first, data, http.StatusOK, "")
	for _, key := range []string{"k1", "k2"} {
		status, again, h := w.call("root", http.MethodPost, promote+"/run", nil, map[string]string{"Idempotency-Key": key})
		if status != http.StatusOK || !bytes.Equal(again, data) || h.Get("Idempotency-Replayed") != "true" {
			t.Errorf("again with key %s: %d %s", key, status, again)
		}
	}
}
