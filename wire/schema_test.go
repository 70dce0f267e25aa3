package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func sampleSchema() Schema {
	return Schema{
		{Name: "batch", Type: TypeText, Length: 8, Basic: true},
		{Name: "blob", Type: TypeBytes, Length: 4},
		{Name: "mode", Type: TypeEnumeration, Values: []string{"eco", "full"}, Default: new("eco"), About: "how it pumps"},
		{Name: "on", Type: TypeBoolean},
		{Name: "rate", Type: TypeInteger, Unit: "ml/h", Min: "-5", Max: "10", SetBy: []string{"operator"}},
		{Name: "report.every", Type: TypeDuration, Min: "1s", Max: "1h0m0s"},
		{Name: "wifi.key", Type: TypeText, Length: 12, Secret: true},
	}
}

// A value is of its parameter in one form, within its bounds; whatever is wrong with a secret, it is not said.
func TestWhichValuesFitASchema(t *testing.T) {
	s := sampleSchema()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, value, says string }{
		{"blob", "AAECAw==", ""},
		{"blob", "AAECAwQ=", "5 bytes, at most 4"},
		{"blob", "AAECAw", "not base64"},
		{"blob", "AAEC\nAw==", "not base64"},
		{"blob", "AAECAx==", "not base64"},
		{"mode", "full", ""},
		{"mode", "Full", "none of eco, full"},
		{"on", "true", ""},
		{"on", "1", "neither true nor false"},
		{"rate", "-5", ""},
		{"rate", "10", ""},
		{"rate", "-6", "below -5"},
		{"rate", "11", "above 10"},
		{"rate", "05", "no integer"},
		{"rate", "+5", "no integer"},
		{"rate", "9223372036854775808", "no integer"},
		{"report.every", "1m30s", ""},
		{"report.every", "90s", "no duration"},
		{"report.every", "999ms", "below 1s"},
		{"report.every", "1h0m1s", "above 1h0m0s"},
		{"wifi.key", "twelve bytes", ""},
		{"wifi.key", "hunter2hunter2", "secret"},
		{"wifi.key", "hunter2\xff", "secret"},
		{"batch", "L4711", "basic"},
		{"nothing", "x", `no parameter "nothing"`},
	} {
		err := s.Admit([]ConfigEntry{{Name: c.name, Value: c.value}})
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, ErrMisfit) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s=%q: %v", c.name, c.value, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("a secret is in %q", err)
		}
	}
	if err := Schema(nil).Admit([]ConfigEntry{{Name: "anything", Value: "x"}}); err != nil {
		t.Errorf("a product without a schema: %v", err)
	}
}

// What a device has goes together with a schema when what both name does.
func TestWhatADeviceHasGoesTogetherWithASchema(t *testing.T) {
	s := sampleSchema()
	if err := s.Holds([]ConfigEntry{{Name: "batch", Value: "L4711"}, {Name: "of.a.later.release", Value: "x"}, {Name: "rate", Value: "7"}}); err != nil {
		t.Error(err)
	}
	if err := s.Holds([]ConfigEntry{{Name: "rate", Value: "11"}}); !errors.Is(err, ErrMisfit) {
		t.Errorf("a rate above the greatest: %v", err)
	}
}

func TestSchemasThatAreNotWellMade(t *testing.T) {
	for name, p := range map[string]Parameter{
		"no name":                     {Type: TypeText},
		"a name in capitals":          {Name: "Rate", Type: TypeText},
		"no type":                     {Name: "x"},
		"another type":                {Name: "x", Type: "float"},
		"a unit of text":              {Name: "x", Type: TypeText, Unit: "m"},
		"bounds of text":              {Name: "x", Type: TypeText, Min: "1"},
		"a bound that is no number":   {Name: "x", Type: TypeInteger, Min: "one"},
		"a bound in another form":     {Name: "x", Type: TypeDuration, Max: "90s"},
		"bounds the wrong way around": {Name: "x", Type: TypeInteger, Min: "2", Max: "1"},
		"a length of an integer":      {Name: "x", Type: TypeInteger, Length: 4},
		"longer than a value can be":  {Name: "x", Type: TypeText, Length: MaxConfigValue + 1},
		"an enumeration of nothing":   {Name: "x", Type: TypeEnumeration},
		"values of text":              {Name: "x", Type: TypeText, Values: []string{"a"}},
		"a value twice":               {Name: "x", Type: TypeEnumeration, Values: []string{"a", "a"}},
		"a default that does not fit": {Name: "x", Type: TypeBoolean, Default: new("yes")},
		"a secret that all know":      {Name: "x", Type: TypeText, Secret: true, Default: new("admin")},
		"basic, and somebody sets it": {Name: "x", Type: TypeText, Basic: true, SetBy: []string{"operator"}},
		"roles in another order":      {Name: "x", Type: TypeText, SetBy: []string{"security", "operator"}},
		"two lines about it":          {Name: "x", Type: TypeText, About: "one\ntwo"},
	} {
		if err := (Schema{p}).Check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := (Schema{{Name: "b", Type: TypeText}, {Name: "a", Type: TypeText}}).Check(); err == nil {
		t.Error("names in falling order: taken")
	}
	if err := (Schema{{Name: "b", Type: TypeText}, {Name: "a", Type: TypeDuration, Min: "90s", Default: new("100s")}}).Canonical().Check(); err != nil {
		t.Errorf("what a person wrote, in its one form: %v", err)
	}
}

// A schema is signed with a release, as it is.
func TestASchemaIsPartOfARelease(t *testing.T) {
	r := sampleRelease()
	r.Parameters = sampleSchema()
	b, err := EncodeRelease(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeRelease(b)
	if err != nil || len(got.Parameters) != len(r.Parameters) || got.Parameters[2].String() != "enumeration, eco | full, default eco" {
		t.Fatalf("%v, %v", got.Parameters, err)
	}
	r.Parameters = Schema{{Name: "x", Type: "float"}}
	if _, err := EncodeRelease(r); err == nil {
		t.Error("a schema that is not well made was taken")
	}
}

func TestSecretsAreHidden(t *testing.T) {
	have := []ConfigEntry{{Name: "rate", Value: "7"}, {Name: "wifi.key", Value: "hunter2"}}
	shown := Hide(sampleSchema().Mark(have))
	if b, err := json.Marshal(shown); err != nil || strings.Contains(string(b), "hunter2") || !shown[1].Secret || shown[0].Value != "7" {
		t.Errorf("%s, %v", b, err)
	}
	if have[1].Value != "hunter2" || have[1].Secret {
		t.Error("what is hidden was changed")
	}
}

// FuzzSchemaFit looks for a schema or value that ends the program, and for a value whose canonical form does not fit where it fits itself.
func FuzzSchemaFit(f *testing.F) {
	b, err := json.Marshal(sampleSchema())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "rate", "7")
	f.Add(b, "report.every", "90s")
	f.Fuzz(func(t *testing.T, doc []byte, name, value string) {
		var s Schema
		if json.Unmarshal(doc, &s) != nil || s.Check() != nil {
			return
		}
		e := []ConfigEntry{{Name: name, Value: value}}
		if s.Admit(e) == nil && s.Admit(s.Canonise(e)) != nil {
			t.Errorf("%v fits, and %v does not", e, s.Canonise(e))
		}
	})
}

// A program names parameters that there are, and can answer to them.
func TestWhatAProgramIsTold(t *testing.T) {
	r := sampleRelease()
	r.Parameters = sampleSchema()
	r.Components[0].Health = HealthSocket
	r.Components[0].Capabilities = &Capabilities{Parameters: []string{"mode", "on", "rate", "report.every", "wifi.key"}}
	if _, err := EncodeRelease(r); err != nil {
		t.Fatal(err)
	}
	b, err := r.Parameters.Values(r.Components[0].Capabilities.Parameters, []ConfigEntry{{Name: "blob", Value: "AA=="}, {Name: "on", Value: "true"}, {Name: "rate", Value: "-5"}, {Name: "wifi.key", Value: "k"}})
	if want := `{"mode":"eco","on":true,"rate":-5,"wifi.key":"k"}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	r.Components[0].Health = HealthAlive
	if _, err := EncodeRelease(r); err == nil || !strings.Contains(err.Error(), "health socket") {
		t.Errorf("a program that cannot answer: %v", err)
	}
	r.Components[0].Health, r.Components[0].Capabilities.Parameters = HealthSocket, []string{"nothing"}
	if _, err := EncodeRelease(r); err == nil || !strings.Contains(err.Error(), `does not have`) {
		t.Errorf("a parameter that is not there: %v", err)
	}
}
