package store

import (
	"strings"

	"github.com/hallmark-iot/hallmark/device"
)

// The states of a life as queries name them, made of what the device stage says of each, so that a query and a rule do not come apart:
// a device is WHERE state IN inField, or NOT IN ended.
var (
	ended     = statesThat(device.Ended)
	retiring  = statesThat(device.Retiring)
	inField   = statesThat(device.InField)
	reporting = statesThat(device.Works)
)

// statesThat lists the states of which a rule holds. They are constants of ours, so that nothing is to be quoted in them.
func statesThat(rule func(device.State) bool) string {
	var names []string
	for _, s := range device.States() {
		if rule(s) {
			names = append(names, "'"+string(s)+"'")
		}
	}
	return "(" + strings.Join(names, ", ") + ")"
}
