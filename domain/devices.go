package domain

// DeviceChannels are those that [ChannelPush] stands for: their endpoints are devices, each somebody's alone. They follow it
// in [AllChannels], whose places are bits of a profile's answers about channels.
var DeviceChannels = AllChannels[2:5]
