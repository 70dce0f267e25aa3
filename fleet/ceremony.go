package fleet

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hallmark-iot/hallmark/wire"
)

// describeCeremony tells of a key ceremony: who was there, with their whole names as far as they are known, and what was done.
func describeCeremony(data, private []byte) (string, error) {
	t, err := wire.OpenTranscript(data)
	if err != nil {
		return "", err
	}
	var said struct {
		People map[string]string `json:"people"`
	}
	if len(private) > 0 {
		if err := json.Unmarshal(private, &said); err != nil {
			return "", err
		}
	}
	who := make([]string, len(t.People))
	for i, p := range t.People {
		who[i] = p.Label
		if n := said.People[p.Label]; n != "" {
			who[i] = n
		}
	}
	return fmt.Sprintf("key ceremony %s, %s: %s", t.Ceremony, Count(len(t.Steps), "step", "steps"), strings.Join(who, ", ")), nil
}
