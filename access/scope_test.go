package access

import (
	"slices"
	"strings"
	"testing"
)

func TestAListIsCutToTheScope(t *testing.T) {
	g, err := NewGuard(&recorder{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		scope          []string
		product, group string
		want           []string
		denied         bool
	}{
		"everywhere, everything":         {nil, "", "", nil, false},
		"everywhere, a product":          {nil, "pump", "", []string{"pump"}, false},
		"everywhere, a group":            {nil, "pump", "eu", []string{"pump/eu"}, false},
		"a product, everything":          {[]string{"pump"}, "", "", []string{"pump"}, false},
		"a product, another":             {[]string{"pump"}, "valve", "", nil, true},
		"a product, its group":           {[]string{"pump"}, "pump", "eu", []string{"pump/eu"}, false},
		"a group, its product":           {[]string{"pump/eu", "valve"}, "pump", "", []string{"pump/eu"}, false},
		"two groups, the one above":      {[]string{"pump/eu/berlin", "pump/eu/rome", "pump/us"}, "pump", "eu", []string{"pump/eu/berlin", "pump/eu/rome"}, false},
		"a group, one in it":             {[]string{"pump/eu"}, "pump", "eu/berlin", []string{"pump/eu/berlin"}, false},
		"a group, its neighbour":         {[]string{"pump/eu/berlin"}, "pump", "eu/rome", nil, true},
		"a group, one that begins alike": {[]string{"pump/eu"}, "pump", "eur", nil, true},
		"nowhere":                        {[]string{""}, "", "", nil, true},
	} {
		got, err := g.Within(t.Context(), Caller{ID: "p:x", Kind: Person, Roles: []Role{Viewer}, Scope: c.scope}, DeviceRead, "fleet", c.product, c.group)
		if (err != nil) != c.denied || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q %v, want %q denied=%v", name, got, err, c.want, c.denied)
		}
	}
}

func TestWhatIsAGroup(t *testing.T) {
	for _, good := range []string{"eu", "eu/berlin/ward-3", strings.Repeat("a/", 7) + "a"} {
		if !ValidGroup(good) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", "/", "eu/", "/eu", "eu//x", "EU", "eu/ber lin", "a/../b", strings.Repeat("a/", 8) + "a", strings.Repeat("ab/", 2) + strings.Repeat("x", 64) + "/" + strings.Repeat("y", 64)} {
		if ValidGroup(bad) {
			t.Errorf("%q is taken", bad)
		}
	}
	for _, bad := range []string{"", "pump/", "Pump", "pump//eu", "*"} {
		if CheckScope([]string{bad}) == nil {
			t.Errorf("scope %q is taken", bad)
		}
	}
}
