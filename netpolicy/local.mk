# netpolicy/
