package store_test

import (
	"slices"
	"testing"

	"github.com/hallmark-iot/hallmark/access"
	"github.com/hallmark-iot/hallmark/access/proposal"
	"github.com/hallmark-iot/hallmark/access/signin"
	"github.com/hallmark-iot/hallmark/fault"
	"github.com/hallmark-iot/hallmark/internal/store/storetest"
)

// Who is limited sees what waits within their scope, whatever they name, and always their own.
func TestProposalsAreSeenByPlace(t *testing.T) {
	db := storetest.Open(t)
	guard := must(access.NewGuard(db))(t)
	svc := proposal.New(db, signin.New(db, guard), guard)
	propose := func(by string, at access.Resource) {
		t.Helper()
		at.Type = "device"
		need := &access.SecondNeededError{Action: access.DeviceQuarantine, Resource: at}
		if _, err := svc.Propose(t.Context(), access.Caller{ID: by, Kind: access.Person}, proposal.Asked{Method: "POST", Path: "/"}, need, "at /"+access.Join(at.Product, at.Group)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []access.Resource{
		{},
		{Product: "pump"},
		{Product: "pump", Group: "eu"},
		{Product: "pump", Group: "eu/berlin"},
		{Product: "pump", Group: "europe"},
		{Product: "pumps"},
	} {
		propose("person:olga", at)
	}
	all := []string{"", "pump", "pump/eu", "pump/eu/berlin", "pump/europe", "pumps"}
	for name, c := range map[string]struct {
		id    string
		scope []string
		place string
		want  []string
	}{
		"nobody limits":                 {want: all},
		"a product":                     {scope: []string{"pump"}, want: all[1:5]},
		"a group":                       {scope: []string{"pump/eu"}, want: all[2:4]},
		"groups":                        {scope: []string{"pump/europe", "pump/eu/berlin"}, want: all[3:5]},
		"asks for a product":            {place: "pump", want: all[1:5]},
		"asks for a group":              {place: "pump/eu", want: all[2:4]},
		"a group asks for its product":  {scope: []string{"pump/eu/berlin"}, place: "pump", want: all[3:4]},
		"one's own, wherever":           {id: "person:olga", scope: []string{"valve"}, want: all},
		"one's own, of what is asked":   {id: "person:olga", scope: []string{"pump/eu/berlin"}, place: "pump/eu", want: all[2:4]},
		"another's of the same":         {scope: []string{"valve"}, want: nil},
		"a neighbour of a similar name": {scope: []string{"pump/e"}, want: nil},
	} {
		who := access.Caller{ID: "person:vera", Kind: access.Person, Roles: []access.Role{access.Viewer}, Scope: c.scope}
		if c.id != "" {
			who.ID = c.id
		}
		list, err := svc.List(t.Context(), who, c.place, "", 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, p := range list {
			got = append(got, access.Join(p.Resource.Product, p.Resource.Group))
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	_, err := svc.List(t.Context(), access.Caller{ID: "person:vera", Kind: access.Person, Roles: []access.Role{access.Viewer}, Scope: []string{"pump/eu"}}, "valve", "", 0)
	if fault.KindOf(err) != fault.Denied {
		t.Errorf("of a product one may not see: %v", err)
	}
}
