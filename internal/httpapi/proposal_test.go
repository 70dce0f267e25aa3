package httpapi_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
	"github.com/hallmark-iot/hallmark/internal/store/sqlite"
	"github.com/hallmark-iot/hallmark/retire"
	"github.com/hallmark-iot/hallmark/wire"
)

// propose asks for what takes two, and gives the proposal's path.
func (w *world) propose(who, method, path string, in any) string {
	w.t.Helper()
	sum := sha256.Sum256(fmt.Append(nil, in))
	status, data, _ := w.call(who, method, path, in, map[string]string{"Hallmark-Propose": "we need it", "Idempotency-Key": hex.EncodeToString(sum[:])})
	if status != http.StatusAccepted {
		w.t.Fatalf("%s proposes %s: %d %s", who, path, status, data)
	}
	return "/api/v1/proposals/" + decided(w.t, data).ID
}

// is fails the test unless the answer has that status and, when it is a problem, that code.
func (w *world) is(status int, data []byte, want int, code string) {
	w.t.Helper()
	if status != want || code != "" && !strings.Contains(string(data), `"urn:hallmark:fault:`+code+`"`) {
		w.t.Errorf("%d %s, want %d %s", status, data, want, code)
	}
}

func decided(t *testing.T, data []byte) proposal.Proposal {
	t.Helper()
	var p proposal.Proposal
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return p
}

func newOperator(name string) httpapi.TokenSpec {
	return httpapi.TokenSpec{Caller: "person:" + name, Kind: access.Person, Roles: []access.Role{access.Operator}, Use: signin.UseToken, Seconds: 3600}
}

// Who gives power to others needs a second administrator, who is somebody else, a person, and allowed to do it himself.
func TestPowerIsGivenByTwo(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator}) // there is one administrator: nobody could be asked
	w.issue("vera", []access.Role{access.Viewer})
	w.issue("ann", []access.Role{access.Admin})

	status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", newOperator("otto"), nil)
	w.is(status, data, http.StatusForbidden, "access.four-eyes")
	path := w.propose("root", http.MethodPost, "/api/v1/tokens", newOperator("otto"))
	again := w.propose("root", http.MethodPost, "/api/v1/tokens", newOperator("otto"))
	if path != again {
		t.Errorf("one key made two proposals: %s and %s", path, again)
	}
	status, data, _ = w.call("vera", http.MethodGet, path, nil, nil)
	if p := decided(t, data); status != http.StatusOK || p.State != proposal.Open || p.Asked.Method != http.MethodPost ||
		!strings.Contains(string(p.Asked.Body), "person:otto") || p.Asked.Summary == "" || p.Reason != "we need it" {
		t.Errorf("what the second person sees: %d %s", status, data)
	}
	for who, code := range map[string]string{"root": "proposal.own", "vera": "access.denied", "olga": "access.denied"} {
		status, data, _ = w.call(who, http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, nil)
		w.is(status, data, http.StatusForbidden, code)
	}
	status, data, _ = w.call("root", http.MethodPost, path+"/run", nil, nil)
	w.is(status, data, http.StatusConflict, "proposal.not-approved")

	status, data, _ = w.call("ann", http.MethodPost, path+"/approve", httpapi.DecisionRequest{Comment: "he starts on Monday"}, nil)
	if p := decided(t, data); status != http.StatusOK || p.State != proposal.Approved || p.Comment != "he starts on Monday" {
		t.Fatalf("approve: %d %s", status, data)
	}
	status, data, _ = w.call("ann", http.MethodPost, path+"/run", nil, nil)
	w.is(status, data, http.StatusForbidden, "proposal.other")
	status, data, h := w.call("root", http.MethodPost, path+"/run", nil, nil)
	var made httpapi.TokenReply
	if err := json.Unmarshal(data, &made); err != nil || status != http.StatusOK || made.Secret == "" || h.Get("Hallmark-Facts") == "" {
		t.Fatalf("run: %d %s %v", status, data, h)
	}
	w.tokens["otto"] = made.Secret
	if status, data, _ = w.call("otto", http.MethodGet, "/api/v1/me", nil, nil); status != http.StatusOK {
		t.Errorf("who was let in: %d %s", status, data)
	}
	status, data, _ = w.call("root", http.MethodGet, path, nil, nil)
	if p := decided(t, data); p.State != proposal.Done || p.Status != http.StatusOK || p.Second != "person:ann" {
		t.Errorf("afterwards: %d %s", status, data)
	}
	status, data, _ = w.call("root", http.MethodPost, path+"/run", nil, nil)
	w.is(status, data, http.StatusConflict, "idempotency.answer-lost") // it is done once, and a secret is told once
	status, data, _ = w.call("ann", http.MethodPost, path+"/refuse", httpapi.DecisionRequest{}, nil)
	w.is(status, data, http.StatusConflict, "proposal.decided")
}

// What takes nobody's second is done at once, also when a second was offered for.
func TestWhatOneMayDoAloneIsDone(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	w.issue("ann", []access.Role{access.Admin})
	because := map[string]string{"Hallmark-Propose": "in case"}
	status, data, _ := w.call("olga", http.MethodPost, "/api/v1/findings/f1/close", httpapi.Reason{Reason: "seen"}, because)
	w.is(status, data, http.StatusOK, "")
	status, data, _ = w.call("olga", http.MethodPost, "/api/v1/tokens", newOperator("otto"), because)
	w.is(status, data, http.StatusForbidden, "access.denied") // a second does not make up for a role
	spec := newOperator("vera")
	spec.Roles = []access.Role{access.Viewer}
	status, data, _ = w.call("root", http.MethodPost, "/api/v1/tokens", spec, nil)
	w.is(status, data, http.StatusOK, "") // who only looks gets no power
	status, data, _ = w.call("root", http.MethodPut, "/api/v1/members/person:olga/roles", httpapi.RolesRequest{Roles: []access.Role{access.Viewer}}, nil)
	w.is(status, data, http.StatusOK, "") // taking power away is quick
	for name, call := range map[string]func() (int, []byte, http.Header){
		"ending another administrator": func() (int, []byte, http.Header) {
			return w.call("root", http.MethodPost, "/api/v1/members/person:ann/end", nil, nil)
		},
		"making an administrator a viewer": func() (int, []byte, http.Header) {
			return w.call("root", http.MethodPut, "/api/v1/members/person:ann/roles", httpapi.RolesRequest{Roles: []access.Role{access.Viewer}}, nil)
		},
		"making him one by a token": func() (int, []byte, http.Header) {
			spec.Caller = "person:ann"
			return w.call("root", http.MethodPost, "/api/v1/tokens", spec, nil)
		},
		"giving the role back": func() (int, []byte, http.Header) {
			return w.call("root", http.MethodPut, "/api/v1/members/person:olga/roles", httpapi.RolesRequest{Roles: []access.Role{access.Operator}}, nil)
		},
	} {
		if status, data, _ := call(); status != http.StatusForbidden || !strings.Contains(string(data), "access.four-eyes") {
			t.Errorf("%s alone: %d %s", name, status, data)
		}
	}
}

func many(n int) httpapi.CommandRequest {
	r := httpapi.CommandRequest{Product: "pump", Act: wire.ActQuarantine, Reason: "odd traffic"}
	for i := range n {
		r.Devices = append(r.Devices, fmt.Sprintf("%032x", i))
	}
	return r
}

// Nobody acts on many devices alone; and what was approved and fails can be tried again, or given up.
func TestManyDevicesTakeTwo(t *testing.T) {
	w := newWorld(t)
	w.start()
	for _, who := range []string{"olga", "otto"} {
		w.issue(who, []access.Role{access.Operator})
	}
	w.issue("elsewhere", []access.Role{access.Operator}, "valve")
	status, data, _ := w.call("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices), nil)
	w.is(status, data, http.StatusUnprocessableEntity, "command.devices") // it may; there are no such devices
	status, data, _ = w.call("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+1), nil)
	w.is(status, data, http.StatusForbidden, "access.four-eyes")
	path := w.propose("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+1))
	status, data, _ = w.call("elsewhere", http.MethodGet, path, nil, nil)
	w.is(status, data, http.StatusForbidden, "access.denied")
	status, data, _ = w.call("elsewhere", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, nil)
	w.is(status, data, http.StatusForbidden, "access.denied")
	_, _, h := w.call("otto", http.MethodGet, path, nil, nil)
	seen := map[string]string{"If-Match": h.Get("ETag")}
	status, data, _ = w.call("otto", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, seen)
	w.is(status, data, http.StatusOK, "")
	status, data, _ = w.call("otto", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, seen)
	w.is(status, data, http.StatusConflict, "proposal.decided")
	for range 2 {
		status, data, _ = w.call("olga", http.MethodPost, path+"/run", nil, nil)
		w.is(status, data, http.StatusUnprocessableEntity, "command.devices")
	}
	status, data, _ = w.call("olga", http.MethodGet, path, nil, nil)
	if p := decided(t, data); p.State != proposal.Approved || p.Status != http.StatusUnprocessableEntity {
		t.Errorf("after it failed: %d %s", status, data)
	}
	status, data, _ = w.call("root", http.MethodPost, "/api/v1/members/person:otto/end", nil, nil)
	w.is(status, data, http.StatusOK, "")
	status, data, _ = w.call("olga", http.MethodPost, path+"/run", nil, nil)
	w.is(status, data, http.StatusForbidden, "proposal.second-ended")

	path = w.propose("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+2))
	status, data, _ = w.call("olga", http.MethodPost, path+"/refuse", httpapi.DecisionRequest{Comment: "not needed any more"}, nil)
	if p := decided(t, data); status != http.StatusOK || p.State != proposal.Withdrawn {
		t.Errorf("withdrawn: %d %s", status, data)
	}
	status, data, _ = w.call("root", http.MethodGet, "/api/v1/proposals?limit=1", nil, nil)
	var page httpapi.Page[proposal.Proposal]
	if err := json.Unmarshal(data, &page); err != nil || status != http.StatusOK || len(page.Items) != 1 || page.Next == "" || page.Items[0].State != proposal.Withdrawn {
		t.Errorf("newest first: %d %s", status, data)
	}
	status, data, _ = w.call("elsewhere", http.MethodGet, "/api/v1/proposals?product=valve", nil, nil)
	if err := json.Unmarshal(data, &page); err != nil || status != http.StatusOK || len(page.Items) != 0 {
		t.Errorf("of another product: %d %s", status, data)
	}
}

// A machine neither agrees nor proposes: it takes two people.
func TestAMachineIsNobodysSecond(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	spec := newOperator("ci")
	spec.Caller, spec.Kind = "machine:ci", access.Machine
	status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", spec, nil)
	var made httpapi.TokenReply
	if err := json.Unmarshal(data, &made); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s", status, data)
	}
	w.tokens["ci"] = made.Secret
	path := w.propose("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+1))
	status, data, _ = w.call("ci", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}, nil)
	w.is(status, data, http.StatusForbidden, "proposal.person")
	status, data, _ = w.call("ci", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+1), map[string]string{"Hallmark-Propose": "olga told it to"})
	w.is(status, data, http.StatusForbidden, "proposal.person")
}

// What was approved is done once, also when what is kept of it is gone; and not with the consent of who may not give it any more.
func TestConsentIsForOnce(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	w.issue("otto", []access.Role{access.Operator})
	w.issue("ann", []access.Role{access.Admin})
	ok := func(status int, data []byte) { t.Helper(); w.is(status, data, http.StatusOK, "") }
	call := func(who, method, path string, in any) (int, []byte) {
		status, data, _ := w.call(who, method, path, in, nil)
		return status, data
	}

	bea := newOperator("bea")
	bea.Roles = []access.Role{access.Admin}
	path := w.propose("root", http.MethodPost, "/api/v1/tokens", bea)
	ok(call("ann", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}))
	_, data := call("root", http.MethodPost, path+"/run", nil)
	var made httpapi.TokenReply
	if err := json.Unmarshal(data, &made); err != nil {
		t.Fatal(err)
	}
	w.tokens["bea"] = made.Secret

	path = w.propose("root", http.MethodPost, "/api/v1/tokens", newOperator("mallory"))
	ok(call("ann", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}))
	ok(call("root", http.MethodPost, path+"/run", nil))
	w.forget()
	status, data := call("root", http.MethodPost, path+"/run", nil)
	w.is(status, data, http.StatusConflict, "proposal.done")

	path = w.propose("olga", http.MethodPost, "/api/v1/commands", many(access.BulkDevices+1))
	ok(call("otto", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}))
	ok(call("root", http.MethodPut, "/api/v1/members/person:otto/roles", httpapi.RolesRequest{Roles: []access.Role{access.Viewer}}))
	status, data = call("olga", http.MethodPost, path+"/run", nil)
	w.is(status, data, http.StatusForbidden, "proposal.second-may-not")

	path = w.propose("root", http.MethodPut, "/api/v1/members/person:otto/roles", httpapi.RolesRequest{Roles: []access.Role{access.Operator}})
	ok(call("ann", http.MethodPost, path+"/approve", httpapi.DecisionRequest{}))
	down := w.propose("root", http.MethodPut, "/api/v1/members/person:ann/roles", httpapi.RolesRequest{Roles: []access.Role{access.Viewer}})
	ok(call("bea", http.MethodPost, down+"/approve", httpapi.DecisionRequest{}))
	ok(call("root", http.MethodPost, down+"/run", nil))
	status, data = call("root", http.MethodPost, path+"/run", nil)
	w.is(status, data, http.StatusForbidden, "proposal.second-may-not")
}

// forget does what a day later is done: it forgets the marks of what was done.
func (w *world) forget() {
	w.t.Helper()
	db, err := sqlite.Open(w.t.Context(), w.layout.Database())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(db.ForgetMarks(w.t.Context(), time.Now().Add(time.Hour)), db.Close()); err != nil {
		w.t.Fatal(err)
	}
}

// Who acts on many devices little by little acts on many.
func TestManyIsNotSplit(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issue("olga", []access.Role{access.Operator})
	some := many(access.BulkDevices)
	for _, next := range []struct {
		from, to, status int
		code             string
	}{{0, 99, http.StatusUnprocessableEntity, "command.devices"}, {99, 100, http.StatusUnprocessableEntity, "command.devices"}, {0, 100, http.StatusUnprocessableEntity, "command.devices"}} {
		part := some
		part.Devices = some.Devices[next.from:next.to]
		status, data, _ := w.call("olga", http.MethodPost, "/api/v1/commands", part, nil)
		w.is(status, data, next.status, next.code) // it may; there are no such devices
	}
	some.Devices = []string{subject}
	status, data, _ := w.call("olga", http.MethodPost, "/api/v1/commands", some, nil)
	w.is(status, data, http.StatusForbidden, "access.four-eyes")
	w.propose("olga", http.MethodPost, "/api/v1/commands", some)
	end := retire.Order{Product: "pump", Devices: []string{subject}, Reason: "worn out"} // another stage, the same count
	status, data, _ = w.call("olga", http.MethodPost, "/api/v1/retirements", end, nil)
	w.is(status, data, http.StatusForbidden, "access.four-eyes")
	w.issue("otto", []access.Role{access.Operator})
	status, data, _ = w.call("otto", http.MethodPost, "/api/v1/retirements", end, nil)
	w.is(status, data, http.StatusUnprocessableEntity, "retire.warrant")
}
