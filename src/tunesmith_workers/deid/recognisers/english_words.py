"""The words that names of people in Latin letters are told by: names that are words too, words that are none, places."""

from __future__ import annotations

ORDINARY = frozenset(
    "Edit Will Mark Grace May June April August Hope Rose Jordan Chase Faith Bill Art Frank Rob Drew Dale Glen Summer Autumn Crystal Amber Paris Austin "
    "Dallas Houston Madison Charlotte Victoria Florence Sydney Chelsea Brooklyn Savannah Georgia Virginia Carolina Dakota Jackson Lincoln Washington "
    "Carson Hunter Mason Parker Cooper Carter Page Ray Rich Dean Earl Duke Bishop Guy Christian Angel Destiny Harmony Joy Melody Misty Sandy Gene Max "
    "Miles Pat Skip Chip Chuck Jenkins Ruby Perl Julia Ada Pascal Swift Alexa Siri Oracle Major Price Reed Sky Star Dawn Eve Ivy Lily Daisy Violet Iris "
    "Olive Pearl Jade Opal Ginger Holly Hazel Heather Fern Laurel Rocky Stone River Forest Robin Jay Wren Phoenix Sage Basil Rosemary Ace Bud Buddy Sonny "
    "Junior King Prince Royal Noble Justice Liberty Mercy Patience Prudence Charity Constance Felicity Verity Unity Trinity Genesis Nevada Kent Chester "
    "Lance Pierce Wade Chance Case Cash Colt Dash Gray Grey Grant Bond Chad Israel Kenya India China Asia America Santiago San Los Don Dom Sol Mar Luz Del "
    "Cruz Villa Berlin Hamburg Bremen Essen Roman An Do Ha Ho Le Sue Peg Jet Era Max Mercedes Porsche Bentley "
    "Royce Ford Lincoln Tesla Dell Wells Marina Marine Norm Stew Van Val Vi Wil Woody Young Long Short Best Good Early Day Love Le Sterling Rich "
    "Linus Atlas Apollo Athena Hermes Jasper Clay Flint Garnet Sapphire Emerald Diamond Gold Silver Bell Beau Belle Blue Brown White Black Green".split()
)
"""First names that are also words, places, months or brands: alone they are no name."""

ALWAYS_CAPITAL = frozenset(
    "May June April August Summer Autumn Paris Austin Dallas Houston Madison Charlotte Victoria Florence Sydney Chelsea Brooklyn Savannah Georgia Virginia "
    "Carolina Dakota Jackson Lincoln Washington Nevada Kent Chester Israel Kenya India China Asia America Santiago San Los Berlin Hamburg Bremen Essen Phoenix "
    "Jordan Mercedes Porsche Bentley Royce Ford Tesla Dell Alexa Siri Oracle Ruby Perl Julia Pascal Swift Apollo Atlas Wells Chase Cruz Trinity Genesis".split()
)
"""Of these and of places, those that are written with a capital letter when they are no name too."""

ORDINARY_SURNAMES = frozenset(
    "Baker Banks Barber Barker Baron Bass Beach Bean Berry Bird Blood Bloom Book Booth Box Branch Bridges Bright Brooks Bull Burns Bush Butcher Butler Case Chamber "
    "Chambers Church Clay Cook Cross Curry Day Drummer Farmer Field Fields Finch Fish Fisher Flowers Flynn Foot Foster Fox Frost Fuller Game Gardner Gentry Glass "
    "Golden Goodman Graves Hall Hand Harper Hart Hawk Hays Head Hill Hills Holder House Hood Hope Horn Hull Judge Key Keys Knight Lake Land Lamb Law Little Lord "
    "Love Lowe Major Marsh Marshall Meadows Mills Miner Moon Moss Mountain Nash Neal Newman Noble North Park Parks Parson Peace Person Pitts Plant Plumb Pool Poole "
    "Pope Porter Potter Powers Pratt Price Pruitt Quick Raven Rains Ray Rice Ridge Rivers Road Rock Rose Rush Sands Salt Savage Sharp Shepherd Ship Short Singer "
    "Small Snow South Spears Spring Stark Steel Stone Story Street Strong Summers Swan Sweet Temple Terry Thorn Tower Townsend Tucker Turner Underwood Valley Wall "
    "Walker Ward Warner Waters Weaver Webb Weeks West Winter Winters Wise Wolf Wood Woods Woodward Wright Younger".split()
)
"""Surnames that are words: after a full name they stand for it only where something says that they do."""

NO_NAMES = frozenset(
    "I A An The This That These Those It Its We You He She They My Your His Her Our Their Who What When Where Why How If And Or But So Yes No Not Please Thanks "
    "Thank Dear Hi Hello Hey Best Kind Regards Sincerely From To Cc Bcc Re Fwd Subject Date Monday Tuesday Wednesday Thursday Friday Saturday Sunday January "
    "February March July September October November December Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Mr Mrs Ms Miss Dr Prof Sir Madam Order Invoice "
    "Ticket Case Call Contact Email Phone Ship Send Meet Ask Tell Yesterday Today Tomorrow Tonight Both After Before During Since Until While Once Our Team "
    "Customer Client Patient Employee Manager Director Engineer Doctor Nurse Officer Agent Driver Passenger Account Card Bank Number Name Address City State "
    "Country Street Road Avenue North South East West New Old Great Saint St Upper Lower Central Attorney Judge Senator Professor Captain Nurse Coach Chef "
    "Passport Visa Mastercard American Express License Plate Report Meeting Project Signed Approved Reviewed Prepared Attn Attention Sales Support Service "
    "Services Security Social General Chief Executive Vice President Chairman CEO CTO CFO COO HR IT QA PM AM USA UK EU US API SQL URL HTTP HTTPS IP ID SSN "
    "PDF CSV JSON XML HTML CSS Python Java Docker Linux Windows Android Google Apple Amazon Microsoft Meta Facebook Twitter Netflix OpenAI Version Chapter "
    "Section Figure Table Appendix Note Warning Error Also Then Now Here There Is Are Was Were Be Been Has Have Had Do Does Did Can Could Should Would May Might "
    "Must Shall Let Make Let's Our Interviewed Interview English French German Spanish Chinese Italian Dutch Indian Irish Monday's Per Via With Without For At "
    "On In By Of As Beneficiary Applicant Tenant Landlord Owner Buyer Seller Guest Resident Member User Admin Student Teacher Witness Plaintiff Defendant "
    "Regarding Concerning Nobody Everybody Someone Everyone Mother Father Brother Sister Uncle Aunt Mom Dad Grandma Grandpa Cousin Neighbor Reply Forward Fax "
    "Mobile Cell Tel Office Home Work Sent Copy Visit Open Close Start Stop End New Next Last First Second Third Lead Senior Deputy Assistant".split()
)
ORGANISATION = frozenset(
    "Inc Ltd LLC LLP PLC Corp Corporation Company Co Group Holdings Bank University College School Institute Hospital Clinic Center Centre Museum Library "
    "Foundation Trust Church Cathedral Airport Station Bridge Park Garden Gardens Street St Avenue Ave Road Rd Boulevard Blvd Lane Drive Square Plaza Tower "
    "Towers Building House Hotel Inn Restaurant Cafe Bar Stadium Arena Hall Theater Theatre Studio Studios Records Motors Controls Systems Software Technologies "
    "Technology Labs Laboratory Laboratories Industries Partners Associates Capital Securities Insurance Pharmaceuticals Foods Brewery Vineyards Island Islands "
    "Lake River Mountain Mountains Valley Beach Bay Cape Canyon Falls Forest County City Town Village State Province District Airlines Airways Press Times Post "
    "Journal Magazine Award Prize Cup Open Trophy Act Amendment Theorem Law Effect Equation Distribution Transform Test Method Algorithm Syndrome Disease Stanley "
    "Fargo Daniels Sachs Lynch Brothers Bros Sons Hathaway Sandwich Burger Day Days Eve Fools Place Court Way Terrace Heights Hills Hill Creek Springs Island "
    "Package Library Notebook Framework Server Pipeline Language Compiler Powers Cola Pepper Bars Mart Depot Martens Marten Reserve Army Navy Pro Max Plus".split()
)
COMPANIES = frozenset(
    ("Morgan Stanley", "Jack Daniels", "Johnnie Walker", "Ralph Lauren", "Calvin Klein", "Mary Kay", "Merrill Lynch")
)
PLACE_BEGINNINGS = frozenset("San Santa Saint Los Las Fort Mount Lake Cape Port Rio Puerto Cerro Sierra Isle".split())
PLACES = frozenset(
    "London York Angeles Francisco Diego Jose Antonio Texas California Florida Georgia Virginia Carolina Washington Boston Chicago Houston Dallas Austin Seattle "
    "Denver Phoenix Portland Paris Berlin Madrid Rome Milan Tokyo Beijing Shanghai Singapore Sydney Melbourne Toronto Vancouver Dublin Oxford Cambridge "
    "Manchester Birmingham Liverpool Bristol Leeds Edinburgh Glasgow Amsterdam Brussels Vienna Zurich Geneva Lisbon Barcelona Munich Hamburg Frankfurt Delhi "
    "Mumbai England Scotland Wales Ireland France Germany Spain Italy Europe Africa Asia America Canada Mexico Brazil Australia India China Japan Korea Russia "
    "Israel Egypt Turkey Greece Jersey Hampshire Orleans Vegas Louis Paul Petersburg Orlando Atlanta Miami Detroit Philadelphia Baltimore Cleveland Nashville "
    "Memphis Jacksonville Charlotte Columbus Lexington Richmond Arlington Jordan Kent Essex Sussex Surrey Lancaster".split()
)
