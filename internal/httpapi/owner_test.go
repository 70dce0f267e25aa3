package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/internal/httpapi"
)

// anowners are the operations that a member of an owner is let through to on what is not the owner's: what is theirs, or nobody's, and
// what the product is to everybody who has one of it.
var anowners = append([]string{
	"list-owners", "claim-device", "get-product-readiness",
}, shared...)

// issueOwned gives somebody a token as a member of an owner.
func (w *world) issueOwned(name, owner string, roles ...access.Role) {
	w.t.Helper()
	status, data, _ := w.call("root", http.MethodPost, "/api/v1/tokens", httpapi.TokenSpec{
		Caller: "person:" + name, Kind: access.Person, Roles: roles, Owner: owner, Use: signin.UseToken, Seconds: 3600,
	}, nil)
	var r httpapi.TokenReply
	if err := json.Unmarshal(data, &r); err != nil || status != http.StatusOK {
		w.t.Fatalf("token for %s: %d %s", name, status, data)
	}
	w.tokens[name] = r.Secret
}

// Every operation, tried by an owner's people: on the maker's things and others' devices they learn and do nothing, and on their own device
// what testdata/owner.txt says, and nothing else.
func TestWhatAnOwnersPeopleMayDo(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.issueOwned("owns", acme, access.Operator)
	w.issueOwned("looks", acme, access.Viewer)
	var got strings.Builder
	fmt.Fprintln(&got, "# operation on an owner's device: which of its people are let through to it (owns: operator; looks: viewer). Operations in no line are the maker's.")
	forged := w.forgeries()
	swap := strings.NewReplacer(subject, owned)
	operations := slices.DeleteFunc(w.operations(), func(op operation) bool { // what anybody may ask is not the owner's
		status, _, _ := w.call("", op.method, place(op), bodyOf(op), nil)
		return status != http.StatusUnauthorized
	})
	for _, op := range operations {
		in := bodyOf(op)
		if forged[op.ID] != nil {
			in = forged[op.ID]
		}
		for _, who := range []string{"owns", "looks"} {
			status, data, _ := w.call(who, op.method, place(op), in, nil)
			said := string(data)
			ok := status < 300
			switch {
			case status >= http.StatusInternalServerError && status != http.StatusServiceUnavailable:
				t.Errorf("%s by %s: %d %s", op.ID, who, status, said)
			case (ok || status == http.StatusConflict) && !slices.Contains(anowners, op.ID) && !strings.HasPrefix(op.path, "/api/v1/owners/"):
				t.Errorf("%s on what is not the owner's: %d %s", op.ID, status, said)
			case ok && op.ID != "get-self" && slices.ContainsFunc(ours, func(x string) bool { return strings.Contains(said, x) }):
				t.Errorf("%s tells an owner of what is not theirs: %s", op.ID, said)
			}
		}
	}
	for _, op := range operations {
		in := bodyOf(op)
		if raw, ok := in.([]byte); !ok && in != nil {
			text, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			in = json.RawMessage(swap.Replace(string(text)))
		} else if ok {
			in = raw
		}
		var through []string
		for _, who := range []string{"owns", "looks"} {
			status, data, _ := w.call(who, op.method, swap.Replace(place(op)), in, nil)
			if status != http.StatusForbidden && status != http.StatusUnprocessableEntity || strings.Contains(string(data), "fault:access.four-eyes") {
				through = append(through, who)
			}
		}
		if len(through) > 0 {
			fmt.Fprintf(&got, "%s %s %s: %s\n", op.ID, op.method, strings.TrimPrefix(op.path, "/api/v1"), strings.Join(through, " "))
		}
	}
	const golden = "testdata/owner.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("an owner's people may do other things than testdata/owner.txt says: run it with -update, and read what has changed\n%s", got.String())
	}
}
